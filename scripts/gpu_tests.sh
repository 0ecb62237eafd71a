# shellcheck shell=bash
# Sourced by test and gpu-check: the Python tests of what computes in the server.

# The quickest first, of which a GPU's machine may have no time for all.
# shellcheck disable=SC2034 # Used by who sources this.
gpu_python=(tests/python/test_{clones,state,dtypes,columns,weights,feature_cache}.py
  tests/python/test_{forward,batch_norm,sharing,train_step,hosted,hosted_gradients}.py
  tests/python/test_{optimizers,budgets,demotion,checkpoints}.py)
