/* C interface of the CUDA kernels. Needs neither CUDA's nor TensorRT's headers.
 *
 * Every launch function enqueues on `stream` (a cudaStream_t; NULL is the default stream) on the
 * current device and returns at once: it allocates nothing, synchronises nothing, and may run
 * under stream capture (call it once before, so that the driver has loaded its code).
 *
 * Results: 0 is success, negative values are FasterSegStatus (nothing was enqueued), positive
 * values are cudaError_t. Pointers are device pointers unless said otherwise. */
#ifndef FASTERSEG_KERNELS_H
#define FASTERSEG_KERNELS_H

#include <stdint.h>

#define FASTERSEG_KERNELS_VERSION 2

#if defined(__GNUC__)
#define FASTERSEG_API __attribute__((visibility("default")))
#else
#define FASTERSEG_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef enum FasterSegStatus {
  FASTERSEG_OK = 0,
  FASTERSEG_NULL_POINTER = -1,   /* a pointer that is needed is NULL */
  FASTERSEG_BAD_SIZE = -2,       /* batch, height or width out of range */
  FASTERSEG_BAD_CHANNELS = -3,   /* number of channels, classes or the pitch out of range */
  FASTERSEG_BAD_KIND = -4,       /* unknown type, layout, stride or flag */
  FASTERSEG_BAD_ALIGNMENT = -5,  /* a pointer is not aligned as the field says */
  FASTERSEG_SMALL_WORKSPACE = -6 /* workspace_bytes below what the query answers */
} FasterSegStatus;

typedef enum FasterSegType { FASTERSEG_FP32 = 0, FASTERSEG_FP16 = 1 } FasterSegType;

typedef enum FasterSegLayout { FASTERSEG_NCHW = 0, FASTERSEG_NHWC = 1 } FasterSegLayout;

/* Largest height or width of any map. */
#define FASTERSEG_MAX_SIDE 65535

/* uint8 BGR frames to normalised RGB, (x / 255 - mean) / std, correctly rounded to float32. */
typedef struct FasterSegNormalizeBgr {
  const uint8_t *frames; /* (batch, height, width, 3), BGR; 4-byte aligned */
  void *output;          /* (batch, 3, height, width) or (batch, height, width, channels), RGB;
                            16-byte aligned */
  int32_t batch, height, width;
  int32_t type;     /* FasterSegType of the output */
  int32_t layout;   /* FasterSegLayout of the output */
  int32_t channels; /* NCHW: 3; NHWC: 3, 4 or 8, of which those beyond 3 are zeros */
  double mean[3];   /* RGB, for values in [0, 1] */
  double std[3];    /* RGB, above 0 */
} FasterSegNormalizeBgr;

FASTERSEG_API int32_t fasterseg_normalize_bgr(const FasterSegNormalizeBgr *arguments, void *stream);

/* 1/8 class logits to class ids at up to 8 times their size: bilinear, align_corners, in float32;
 * the first of equal greatest logits wins. Logits must be finite: where one is not, a label is
 * some class, as an infinity times a weight of 0 is no number. */
typedef struct FasterSegUpsampleArgmax {
  const void *logits; /* (batch, classes, height, width) or (batch, height, width, pitch) */
  uint8_t *labels;    /* (batch, out_height, out_width); the same bytes are int8 ids */
  int32_t batch, height, width; /* of the logits */
  int32_t out_height, out_width; /* at most 8 * height, 8 * width: cropped at bottom and right */
  int32_t classes;               /* 1 to 127 */
  int32_t pitch;                 /* NHWC: values from pixel to pixel, at least classes */
  int32_t type;                  /* FasterSegType of the logits */
  int32_t layout;                /* FasterSegLayout of the logits */
  float alpha;                   /* opacity of the colours, 0 to 1 */
  uint8_t *overlay;       /* NULL, or (batch, out_height, out_width, 3) BGR: colours over frames */
  const uint8_t *frames;  /* NULL (colours only), or (batch, out_height, out_width, 3) BGR */
  const uint8_t *palette; /* (classes, 3) BGR; needed with overlay */
} FasterSegUpsampleArgmax;

FASTERSEG_API int32_t fasterseg_upsample_argmax(const FasterSegUpsampleArgmax *arguments,
                                                void *stream);

/* Zoomed convolution, batch norm folded: bilinear (align_corners) to (height / 2, width / 2),
 * 3x3 convolution + bias [, ReLU, 3x3 convolution + bias], bilinear back, ReLU.
 * With stride 2 there is no way back: the output is (height / 2, width / 2), both floored.
 * Maps are fp16 NHWC; products are summed in float32. */
typedef struct FasterSegZoomedConv {
  const void *input;   /* (batch, height, width, in_channels) fp16; 16-byte aligned */
  const void *weight1; /* (out_channels, 3, 3, in_channels) fp16; 16-byte aligned */
  const float *bias1;  /* (out_channels,) */
  const void *weight2; /* NULL for one convolution, else (out_channels, 3, 3, out_channels) fp16;
                          16-byte aligned */
  const float *bias2;  /* (out_channels,); needed with weight2 */
  void *output;        /* (batch, height, width, out_channels) fp16, halved sides with stride 2;
                          16-byte aligned; must not overlap the input */
  void *workspace;     /* 16-byte aligned; NULL where the query answers 0 */
  int64_t workspace_bytes;
  int32_t batch, height, width; /* of the input, sides from 2 */
  int32_t in_channels, out_channels; /* multiples of 8 */
  int32_t stride;                    /* 1 or 2 */
} FasterSegZoomedConv;

/* Bytes of workspace that a launch with these sizes needs (pointers may be NULL, but whether
 * weight2 is NULL counts); negative: FasterSegStatus. */
FASTERSEG_API int64_t fasterseg_zoomed_conv_workspace(const FasterSegZoomedConv *arguments);

FASTERSEG_API int32_t fasterseg_zoomed_conv(const FasterSegZoomedConv *arguments, void *stream);

/* A map to another size: bilinear, align_corners, summed in float32, then bias and ReLU. Equal sizes
 * are a copy. Pitches let either side be a slice of a wider map: its pointer is that of the map's
 * first pixel plus the slice's first channel. */
typedef struct FasterSegResize {
  const void *input; /* (batch, in_height, in_width, in_pitch) fp16; 16-byte aligned */
  const float *bias; /* NULL, or (channels,); 16-byte aligned */
  void *output;      /* (batch, out_height, out_width, out_pitch) fp16; 16-byte aligned; what is
                        written must not overlap what is read */
  int32_t batch, in_height, in_width, out_height, out_width;
  int32_t channels;            /* a multiple of 8, at most 65528 */
  int32_t in_pitch, out_pitch; /* values from pixel to pixel: multiples of 8, at least channels;
                                  values between are neither read nor written */
  int32_t relu;                /* 1: negative values become 0; 0: they stay */
} FasterSegResize;

FASTERSEG_API int32_t fasterseg_resize(const FasterSegResize *arguments, void *stream);

/* FASTERSEG_KERNELS_VERSION of the library. */
FASTERSEG_API int32_t fasterseg_kernels_version(void);

/* What a result means, in English; a host string that lives forever. */
FASTERSEG_API const char *fasterseg_kernels_message(int32_t result);

#ifdef __cplusplus
}
#endif

#endif
