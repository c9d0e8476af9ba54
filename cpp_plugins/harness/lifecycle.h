// A plugin's life as TensorRT leads it, all but the work itself.
#pragma once

#include "cases.h"
#include "host.h"
#include "report.h"

namespace harness {

// A node's tensors as plugins see them: inputs, then the output.
std::vector<nvinfer1::PluginTensorDesc> descriptors(const Node &node,
                                                    const std::vector<Layout> &layouts);

// Creates the plugin of a node as in a build; null, and a failed check, where it is refused.
PluginPointer created(const Library &library, const Node &node, Report &report);

// Types, shapes (fixed and free), formats, workspace of a node that must be accepted.
void check_build(const Library &library, const Node &node, Report &report);

// Serialised and created anew as from a plan, cloned and attached to a context; null, and a failed
// check, where that goes wrong. What it came from is gone by then.
PluginPointer revived(const Library &library, const Node &node, Report &report);

// Refused where it must be, with an error that reaches the logger.
void check_refusal(const Library &library, Logger &logger, const Refused &refused, Report &report);

nvinfer1::IPluginV3OneBuild *build_of(nvinfer1::IPluginV3 &plugin);
nvinfer1::IPluginV3OneRuntime *runtime_of(nvinfer1::IPluginV3 &plugin);

// Bytes of workspace for these tensors.
size_t workspace_of(nvinfer1::IPluginV3 &plugin,
                    const std::vector<nvinfer1::PluginTensorDesc> &tensors);

} // namespace harness
