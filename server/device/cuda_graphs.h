// The functions of libbackboned_cuda.so, which the server opens if it is to
// record CUDA graphs. It alone is compiled with CUDA's headers.
//
// They throw c10::Error.

#ifndef BACKBONED_SERVER_DEVICE_CUDA_GRAPHS_H_
#define BACKBONED_SERVER_DEVICE_CUDA_GRAPHS_H_

extern "C" {

// Returns a graph of what `launch(context)` asks the device to do. It is called
// twice: once to run, so that CUDA's libraries are ready, and once to be
// recorded. It may wait for nothing, nor copy from or to the host.
void* BackbonedRecordGraph(int device, void (*launch)(void*), void* context);

// Does it again, in this thread's stream.
void BackbonedReplayGraph(void* graph);

// Frees the graph and its memory. It must not be at work.
void BackbonedDeleteGraph(void* graph);

}  // extern "C"

#endif  // BACKBONED_SERVER_DEVICE_CUDA_GRAPHS_H_
