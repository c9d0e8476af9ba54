/* C interface of the CPU kernels.
 *
 * Results: 0 is success, anything below it is a FasterSegCpuStatus and nothing was written. They
 * do not depend on the instruction set or on the number of threads, to the last bit. Arrays are
 * contiguous and need no alignment beyond that of their type. Functions may be called from several
 * threads at once; those that a call starts itself have ended when it returns. */
#ifndef FASTERSEG_CPU_H
#define FASTERSEG_CPU_H

#include <stdint.h>

#define FASTERSEG_CPU_VERSION 1

#if defined(__GNUC__)
#define FASTERSEG_API __attribute__((visibility("default")))
#else
#define FASTERSEG_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef enum FasterSegCpuStatus {
  FASTERSEG_CPU_OK = 0,
  FASTERSEG_CPU_NULL_POINTER = -1,  /* a pointer that is needed is NULL */
  FASTERSEG_CPU_BAD_SIZE = -2,      /* batch, height, width or threads out of range */
  FASTERSEG_CPU_BAD_VALUE = -3,     /* classes, alpha, mean or std out of range */
  FASTERSEG_CPU_UNKNOWN_ISA = -4,   /* the library has no kernels of that instruction set */
  FASTERSEG_CPU_MISSING_ISA = -5,   /* this CPU does not have that instruction set */
  FASTERSEG_CPU_OUT_OF_MEMORY = -6
} FasterSegCpuStatus;

/* Largest height or width of any map, and most threads of a call. */
#define FASTERSEG_CPU_MAX_SIDE 65535
#define FASTERSEG_CPU_MAX_THREADS 256

/* Class logits to class ids: they grow to (full_height, full_width), bilinear with align_corners in
 * float32, and are cropped at bottom and right to (out_height, out_width). The first of equal
 * greatest logits wins. A NaN never wins; a pixel where nothing is above minus infinity is class 0;
 * next to an infinity a label is some class, as an infinity times a weight of 0 is no number. */
typedef struct FasterSegCpuUpsampleArgmax {
  const float *logits; /* (batch, classes, height, width) */
  uint8_t *labels;     /* (batch, out_height, out_width) */
  int32_t batch, classes; /* 1 to 127 classes */
  int32_t height, width;
  int32_t full_height, full_width;
  int32_t out_height, out_width; /* at most the full ones */
  int32_t isa;                   /* of fasterseg_cpu_isa */
  int32_t threads;
  /* Labels painted as by fasterseg_cpu_blend while they are in the cache; overlay NULL: not. */
  const uint8_t *frames;  /* NULL (colours only), or (batch, out_height, out_width, 3) BGR */
  const uint8_t *palette; /* (256, 3) BGR; needed with overlay */
  uint8_t *overlay;       /* NULL, or (batch, out_height, out_width, 3) BGR */
  double alpha;
} FasterSegCpuUpsampleArgmax;

FASTERSEG_API int32_t fasterseg_cpu_upsample_argmax(const FasterSegCpuUpsampleArgmax *arguments);

/* Colours of a class map over a frame: frame * (1 - alpha) + colour * alpha, the weights and the
 * colour's product rounded to float32, the sum fused, to nearest with ties to even: the bytes of
 * OpenCV's addWeighted. */
typedef struct FasterSegCpuBlend {
  const uint8_t *frame;   /* NULL (colours only), or (height, width, 3) BGR */
  const uint8_t *labels;  /* (height, width) */
  const uint8_t *palette; /* (256, 3) BGR */
  uint8_t *output;        /* (height, width, 3) BGR; may be frame itself */
  int32_t height, width;
  double alpha; /* opacity of the colours, 0 to 1 */
  int32_t isa;
  int32_t threads;
} FasterSegCpuBlend;

FASTERSEG_API int32_t fasterseg_cpu_blend(const FasterSegCpuBlend *arguments);

/* uint8 BGR frames to normalised RGB planes, (x / 255 - mean) / std in float64 rounded once. */
typedef struct FasterSegCpuNormalizeBgr {
  const uint8_t *frames; /* (batch, height, width, 3) BGR */
  float *output;         /* (batch, 3, height, width) RGB */
  int32_t batch, height, width;
  int32_t isa;
  int32_t threads;
  double mean[3]; /* RGB, for values in [0, 1] */
  double std[3];  /* RGB, above 0 */
} FasterSegCpuNormalizeBgr;

FASTERSEG_API int32_t fasterseg_cpu_normalize_bgr(const FasterSegCpuNormalizeBgr *arguments);

/* Number of an instruction set, for the field `isa`; NULL is the best that this CPU has.
 * Below 0: FASTERSEG_CPU_UNKNOWN_ISA, FASTERSEG_CPU_MISSING_ISA. */
FASTERSEG_API int32_t fasterseg_cpu_isa(const char *name);

/* Its name, NULL for a number that is none. This and all other strings live forever. */
FASTERSEG_API const char *fasterseg_cpu_isa_name(int32_t isa);

/* Names of the instruction sets that the library holds, best first, separated by spaces. */
FASTERSEG_API const char *fasterseg_cpu_isas(void);

/* FASTERSEG_CPU_VERSION of the library. */
FASTERSEG_API int32_t fasterseg_cpu_version(void);

/* What a result means, in English. */
FASTERSEG_API const char *fasterseg_cpu_message(int32_t result);

#ifdef __cplusplus
}
#endif

#endif
