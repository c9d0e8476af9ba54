#include "lifecycle.h"

#include <algorithm>

#include "expressions.h"

namespace harness {
namespace {

using nvinfer1::DimsExprs;
using nvinfer1::DynamicPluginTensorDesc;
using nvinfer1::IPluginV3;
using nvinfer1::PluginCapabilityType;
using nvinfer1::PluginField;
using nvinfer1::PluginFieldCollection;
using nvinfer1::PluginFieldType;
using nvinfer1::PluginTensorDesc;
using nvinfer1::TensorRTPhase;

constexpr DataType kTypes[] = {DataType::kFLOAT, DataType::kHALF,  DataType::kINT8,
                               DataType::kINT32, DataType::kUINT8, DataType::kBF16};
constexpr TensorFormat kFormats[] = {TensorFormat::kLINEAR, TensorFormat::kCHW2,
                                     TensorFormat::kHWC8,   TensorFormat::kCHW4,
                                     TensorFormat::kCHW16,  TensorFormat::kCHW32,
                                     TensorFormat::kHWC,    TensorFormat::kHWC16};

nvinfer1::Dims dims_of(const Shape &shape) {
  nvinfer1::Dims dims = {};
  dims.nbDims = static_cast<int32_t>(shape.size());
  std::copy(shape.begin(), shape.end(), dims.d);
  return dims;
}

std::vector<Tensor> tensors_of(const Node &node) {
  std::vector<Tensor> tensors = node.inputs;
  tensors.push_back(node.output);
  return tensors;
}

std::vector<PluginField> fields_of(const Node &node) {
  std::vector<PluginField> fields;
  for (const Field &field : node.fields) {
    fields.emplace_back(field.name.c_str(), field.values.data(), PluginFieldType::kINT32,
                        static_cast<int32_t>(field.values.size()));
  }
  return fields;
}

PluginPointer create(nvinfer1::IPluginCreatorV3One &creator, const std::vector<PluginField> &fields,
                     TensorRTPhase phase) {
  const PluginFieldCollection all = {static_cast<int32_t>(fields.size()), fields.data()};
  return PluginPointer(creator.createPlugin(creator.getPluginName(), &all, phase));
}

std::vector<DynamicPluginTensorDesc> dynamic(const std::vector<PluginTensorDesc> &tensors) {
  std::vector<DynamicPluginTensorDesc> result;
  for (const PluginTensorDesc &tensor : tensors) {
    DynamicPluginTensorDesc ranged = {};
    ranged.desc = tensor;
    ranged.min = ranged.max = ranged.opt = tensor.dims;
    result.push_back(ranged);
  }
  return result;
}

int32_t output_types(IPluginV3 &plugin, const Node &node, DataType &type) {
  std::vector<DataType> types;
  for (const Tensor &input : node.inputs) {
    types.push_back(input.type);
  }
  const auto count = static_cast<int32_t>(types.size());
  return build_of(plugin)->getOutputDataTypes(&type, 1, types.data(), count);
}

// Inputs as expressions; of the first, batch, height and width are symbols 0 to 2 where `free`.
std::vector<DimsExprs> expressed(const Node &node, bool free, Expressions &expressions) {
  std::vector<DimsExprs> inputs(node.inputs.size());
  for (size_t input = 0; input < inputs.size(); ++input) {
    const Shape &shape = node.inputs[input].shape;
    inputs[input].nbDims = static_cast<int32_t>(shape.size());
    for (size_t axis = 0; axis < shape.size(); ++axis) {
      const bool symbol = free && input == 0 && axis != 1;
      inputs[input].d[axis] = symbol ? expressions.symbol(axis == 0 ? 0 : axis - 1)
                                     : expressions.number(shape[axis]);
    }
  }
  return inputs;
}

int32_t output_shape(IPluginV3 &plugin, const std::vector<DimsExprs> &inputs, DimsExprs &output,
                     Expressions &expressions) {
  const auto count = static_cast<int32_t>(inputs.size());
  return build_of(plugin)->getOutputShapes(inputs.data(), count, nullptr, 0, &output, 1,
                                           expressions);
}

Shape values_of(const DimsExprs &shape, const std::vector<int64_t> &symbols) {
  Shape values;
  for (int32_t axis = 0; axis < shape.nbDims; ++axis) {
    values.push_back(static_cast<const Expression *>(shape.d[axis])->at(symbols));
  }
  return values;
}

void check_shapes(IPluginV3 &plugin, const Node &node, Report &report) {
  Expressions expressions;
  DimsExprs output = {};
  const bool fixed =
      output_shape(plugin, expressed(node, false, expressions), output, expressions) == 0;
  report.check(fixed && values_of(output, {}) == node.output.shape, "output shape, fixed sizes");
  const bool free =
      output_shape(plugin, expressed(node, true, expressions), output, expressions) == 0;
  bool right = free;
  for (const int64_t height : {2, 5, 128}) {
    for (const int64_t width : {3, 256}) {
      const Shape logits = {4, 19, height, width};
      const Zoomed sizes = {1, stride_of(node), 4, 8, node.output.shape[1], height, width};
      const Node other = convs_of(node) == 0 ? upsample_node(logits, DataType::kHALF)
                                             : zoomed_node(sizes);
      right = right && values_of(output, {4, height, width}) == other.output.shape;
    }
  }
  report.check(right, "output shape, free batch, height and width");
}

// Every combination that is accepted, position by position as TensorRT asks; what lies beyond the
// position is another tensor's garbage.
void sweep(IPluginV3 &plugin, std::vector<DynamicPluginTensorDesc> &tensors, size_t position,
           std::vector<std::vector<Layout>> &accepted) {
  if (position == tensors.size()) {
    std::vector<Layout> layouts;
    for (const DynamicPluginTensorDesc &tensor : tensors) {
      layouts.push_back({tensor.desc.type, tensor.desc.format});
    }
    accepted.push_back(layouts);
    return;
  }
  for (const DataType type : kTypes) {
    for (const TensorFormat format : kFormats) {
      for (size_t later = position + 1; later < tensors.size(); ++later) {
        tensors[later].desc.type = DataType::kBOOL;
        tensors[later].desc.format = TensorFormat::kDLA_LINEAR;
      }
      tensors[position].desc.type = type;
      tensors[position].desc.format = format;
      const auto inputs = static_cast<int32_t>(tensors.size()) - 1;
      if (build_of(plugin)->supportsFormatCombination(static_cast<int32_t>(position),
                                                      tensors.data(), inputs, 1)) {
        sweep(plugin, tensors, position + 1, accepted);
      }
    }
  }
}

void check_formats(IPluginV3 &plugin, const Node &node, Report &report) {
  const std::vector<std::vector<Layout>> expected = layouts_of(node);
  std::vector<DynamicPluginTensorDesc> tensors = dynamic(descriptors(node, expected[0]));
  std::vector<std::vector<Layout>> accepted;
  sweep(plugin, tensors, 0, accepted);
  bool same = accepted.size() == expected.size();
  for (const std::vector<Layout> &layouts : expected) {
    same = same && std::count(accepted.begin(), accepted.end(), layouts) == 1;
  }
  report.check(same, "accepted types and formats",
               std::to_string(accepted.size()) + " combinations accepted");
}

// A deep copy, as the fields of a plan outlive the plugin that gave them.
std::vector<Field> copied(const PluginFieldCollection &fields) {
  std::vector<Field> copies;
  for (int32_t index = 0; index < fields.nbFields; ++index) {
    const PluginField &field = fields.fields[index];
    const auto *const values = static_cast<const int32_t *>(field.data);
    copies.push_back({field.name, {values, values + field.length}});
  }
  return copies;
}

bool same_fields(const std::vector<Field> &a, const std::vector<Field> &b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](const Field &x, const Field &y) {
    return x.name == y.name && x.values == y.values;
  });
}

class Context final : public nvinfer1::IPluginResourceContext {
public:
  nvinfer1::IGpuAllocator *getGpuAllocator() const noexcept override { return nullptr; }
  nvinfer1::IErrorRecorder *getErrorRecorder() const noexcept override { return nullptr; }
};

bool has_capabilities(IPluginV3 &plugin, const Node &node) {
  auto *const core = static_cast<nvinfer1::IPluginV3OneCore *>(
      plugin.getCapabilityInterface(PluginCapabilityType::kCORE));
  return core && build_of(plugin) && runtime_of(plugin) &&
         core->getInterfaceInfo().kind == std::string("PLUGIN_V3ONE_CORE") &&
         build_of(plugin)->getInterfaceInfo().kind == std::string("PLUGIN_V3ONE_BUILD") &&
         runtime_of(plugin)->getInterfaceInfo().kind == std::string("PLUGIN_V3ONE_RUNTIME") &&
         core->getPluginName() == node.plugin && core->getPluginVersion() == std::string("1") &&
         core->getPluginNamespace() == std::string("fasterseg");
}

bool is_refused(IPluginV3 *plugin, const Refused &refused) {
  const Node &node = refused.node;
  if (refused.where == Refusal::kCreate || !plugin) {
    return refused.where == Refusal::kCreate && !plugin;
  }
  if (refused.where == Refusal::kTypes) {
    DataType type = {};
    return output_types(*plugin, node, type) != 0;
  }
  if (refused.where == Refusal::kShapes) {
    Expressions expressions;
    DimsExprs output = {};
    return output_shape(*plugin, expressed(node, false, expressions), output, expressions) != 0;
  }
  const auto tensors = descriptors(node, layouts_of(node)[0]);
  const auto inputs = static_cast<int32_t>(node.inputs.size());
  return runtime_of(*plugin)->onShapeChange(tensors.data(), inputs, &tensors.back(), 1) != 0;
}

} // namespace

nvinfer1::IPluginV3OneBuild *build_of(IPluginV3 &plugin) {
  return static_cast<nvinfer1::IPluginV3OneBuild *>(
      plugin.getCapabilityInterface(PluginCapabilityType::kBUILD));
}

nvinfer1::IPluginV3OneRuntime *runtime_of(IPluginV3 &plugin) {
  return static_cast<nvinfer1::IPluginV3OneRuntime *>(
      plugin.getCapabilityInterface(PluginCapabilityType::kRUNTIME));
}

std::vector<PluginTensorDesc> descriptors(const Node &node, const std::vector<Layout> &layouts) {
  const std::vector<Tensor> tensors = tensors_of(node);
  std::vector<PluginTensorDesc> result;
  for (size_t index = 0; index < tensors.size(); ++index) {
    const Layout &layout = layouts.at(index);
    result.push_back({dims_of(tensors[index].shape), layout.type, layout.format, 1.0f});
  }
  return result;
}

size_t workspace_of(IPluginV3 &plugin, const std::vector<PluginTensorDesc> &tensors) {
  const std::vector<DynamicPluginTensorDesc> ranged = dynamic(tensors);
  const auto inputs = static_cast<int32_t>(tensors.size()) - 1;
  return build_of(plugin)->getWorkspaceSize(ranged.data(), inputs, &ranged.back(), 1);
}

PluginPointer created(const Library &library, const Node &node, Report &report) {
  nvinfer1::IPluginCreatorV3One *const creator = library.creator(node.plugin);
  if (!report.check(creator != nullptr, "there is a creator")) {
    return nullptr;
  }
  PluginPointer plugin = create(*creator, fields_of(node), TensorRTPhase::kBUILD);
  report.check(plugin != nullptr, "created for a build");
  return plugin;
}

void check_build(const Library &library, const Node &node, Report &report) {
  const PluginPointer plugin = created(library, node, report);
  if (!plugin || !report.check(has_capabilities(*plugin, node), "capabilities and names")) {
    return;
  }
  report.check(build_of(*plugin)->getNbOutputs() == 1, "one output");
  DataType type = {};
  const bool typed = output_types(*plugin, node, type) == 0;
  report.check(typed && type == node.output.type, "output type");
  check_shapes(*plugin, node, report);
  check_formats(*plugin, node, report);
  const auto inputs = static_cast<int32_t>(node.inputs.size());
  for (const std::vector<Layout> &layouts : layouts_of(node)) {
    const std::vector<DynamicPluginTensorDesc> ranged = dynamic(descriptors(node, layouts));
    report.check(
        build_of(*plugin)->configurePlugin(ranged.data(), inputs, &ranged.back(), 1) == 0,
        "configured");
  }
}

PluginPointer revived(const Library &library, const Node &node, Report &report) {
  PluginPointer plugin = created(library, node, report);
  if (!plugin) {
    return nullptr;
  }
  Node stored = node;
  stored.fields = copied(*runtime_of(*plugin)->getFieldsToSerialize());
  report.check(same_fields(stored.fields, node.fields), "serialised fields are the attributes");
  plugin = create(*library.creator(node.plugin), fields_of(stored), TensorRTPhase::kRUNTIME);
  if (!report.check(plugin != nullptr, "created from serialised fields")) {
    return nullptr;
  }
  PluginPointer clone(plugin->clone());
  plugin.reset();
  if (!report.check(clone && has_capabilities(*clone, node), "cloned")) {
    return nullptr;
  }
  Context context;
  PluginPointer attached(runtime_of(*clone)->attachToContext(&context));
  clone.reset();
  if (!report.check(attached && has_capabilities(*attached, node), "attached to a context")) {
    return nullptr;
  }
  const std::vector<Field> again = copied(*runtime_of(*attached)->getFieldsToSerialize());
  report.check(same_fields(again, node.fields), "serialised again alike");
  return attached;
}

void check_refusal(const Library &library, Logger &logger, const Refused &refused,
                   Report &report) {
  nvinfer1::IPluginCreatorV3One *const creator = library.creator(refused.node.plugin);
  if (!report.check(creator != nullptr, "there is a creator")) {
    return;
  }
  logger.taken();
  const PluginPointer plugin =
      create(*creator, fields_of(refused.node), TensorRTPhase::kBUILD);
  report.check(is_refused(plugin.get(), refused), "refused");
  const std::vector<std::string> errors = logger.taken();
  const std::string prefix = "fasterseg::" + refused.node.plugin + ": ";
  if (library.shares_loggers()) {
    report.check(errors.size() == 1 && errors[0].rfind(prefix, 0) == 0, "reason is logged",
                 std::to_string(errors.size()) + " errors");
  } else {
    report.check(errors.empty(), "a logger of another layout is left alone");
  }
}

} // namespace harness
