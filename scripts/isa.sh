# shellcheck shell=bash
# Sourced by test: the sets of instructions that the numeric libraries can be held to.

isas=(sse41 avx2 avx512) # Each has those before it.

# has_isa SET: whether this processor has all that the set needs.
has_isa() {
  local needed flags flag
  case $1 in
    sse41) needed='sse4_1 sse4_2' ;;
    avx2) needed='avx2 fma' ;;
    avx512) needed='avx512f avx512bw avx512dq avx512vl' ;;
    *) die "no set of instructions '$1'; one of ${isas[*]}" ;;
  esac
  flags=" $(sed -n '/^flags/{s/.*://p;q}' /proc/cpuinfo) "
  for flag in $needed; do
    [[ $flags == *" $flag "* ]] || return 1
  done
}

# isa_variables SET: prints the variables that hold LibTorch, oneDNN and MKL to it.
#
# On processors that are not Intel's MKL heeds MKL_CBWR=COMPATIBLE only.
isa_variables() {
  case $1 in
    sse41)
      echo ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41 \
        MKL_ENABLE_INSTRUCTIONS=SSE4_2 MKL_CBWR=COMPATIBLE
      ;;
    avx2)
      echo ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 MKL_ENABLE_INSTRUCTIONS=AVX2
      ;;
    avx512)
      echo ATEN_CPU_CAPABILITY=avx512 ONEDNN_MAX_CPU_ISA=AVX512_CORE \
        MKL_ENABLE_INSTRUCTIONS=AVX512
      ;;
  esac
}

# isa_is_set: whether the environment holds one of the libraries to a set already.
isa_is_set() {
  [[ -n ${ATEN_CPU_CAPABILITY-}${ONEDNN_MAX_CPU_ISA-}${DNNL_MAX_CPU_ISA-} ||
    -n ${MKL_ENABLE_INSTRUCTIONS-}${MKL_CBWR-} ]]
}

# isa_in_use: prints the set that LibTorch computes with in this environment.
isa_in_use() {
  local capability
  capability=$(.venv/bin/python -c \
    'import torch; print(torch.backends.cpu.get_cpu_capability())')
  case $capability in
    DEFAULT) echo sse41 ;;
    *) echo "${capability,,}" ;;
  esac
}

# processor: prints its model.
processor() { sed -n '/^model name/{s/.*: //p;q}' /proc/cpuinfo; }
