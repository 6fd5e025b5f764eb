// Marks functions that the CPU's loops and the CUDA kernels compile alike.
#pragma once

#ifdef __CUDACC__
#define HEMOSTAT_BOTH __host__ __device__
#else
#define HEMOSTAT_BOTH
#endif
