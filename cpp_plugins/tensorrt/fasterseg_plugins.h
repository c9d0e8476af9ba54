/* What the plugin library exports besides getCreators and setLoggerFinder. */
#ifndef FASTERSEG_PLUGINS_H
#define FASTERSEG_PLUGINS_H

#include <stdint.h>

#define FASTERSEG_PLUGINS_VERSION 1

#ifdef __cplusplus
extern "C" {
#endif

/* FASTERSEG_PLUGINS_VERSION of the library: raised when nodes or exports change. */
int32_t fasterseg_plugins_version(void);

/* Version of the TensorRT headers it was compiled with, 10000 * major + 100 * minor + patch. */
int32_t fasterseg_plugins_headers(void);

#ifdef __cplusplus
}
#endif

#endif
