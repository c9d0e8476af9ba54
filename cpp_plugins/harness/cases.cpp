#include "cases.h"

namespace harness {
namespace {

constexpr Layout kHalfHwc8 = {DataType::kHALF, TensorFormat::kHWC8};

std::vector<int32_t> ints(const Shape &shape) { return {shape.begin(), shape.end()}; }

Node changed(Node node, size_t input, const Tensor &tensor) {
  node.inputs.at(input) = tensor;
  return node;
}

Node with_field(Node node, const Field &field) {
  node.fields = {field};
  return node;
}

} // namespace

Node upsample_node(const Shape &logits, DataType type) {
  return {"UpsampleArgmax",
          {{"scale", {8}}},
          {{logits, type}},
          {{logits[0], 8 * logits[2], 8 * logits[3]}, DataType::kINT8}};
}

Node zoomed_node(const Zoomed &z) {
  Node node;
  node.plugin = "ZoomedConv" + std::to_string(z.convs) + "xS" + std::to_string(z.stride);
  const Shape x = {z.batch, z.in_channels, z.height, z.width};
  node.inputs.push_back({x, DataType::kHALF});
  for (int conv = 0; conv < z.convs; ++conv) {
    const int64_t channels = conv == 0 ? z.in_channels : z.out_channels;
    node.inputs.push_back({{z.out_channels, channels, 3, 3}, DataType::kHALF});
    node.inputs.push_back({{z.out_channels}, z.bias});
  }
  const Shape half = {z.batch, z.in_channels, z.height / 2, z.width / 2};
  const Shape out = z.stride == 1 ? Shape{z.batch, z.out_channels, z.height, z.width}
                                  : Shape{z.batch, z.out_channels, z.height / 2, z.width / 2};
  if (z.sizes) {
    node.fields.push_back({"half_sizes", ints(half)});
    if (z.stride == 1) {
      node.fields.push_back({"out_sizes", ints(out)});
    }
  }
  node.output = {out, DataType::kHALF};
  return node;
}

int convs_of(const Node &node) { return static_cast<int>(node.inputs.size() / 2); }

int stride_of(const Node &node) { return node.plugin.back() == '2' ? 2 : 1; }

std::vector<std::vector<Layout>> layouts_of(const Node &node) {
  if (convs_of(node) == 0) {
    const Layout ids = {DataType::kINT8, TensorFormat::kLINEAR};
    return {{{DataType::kFLOAT, TensorFormat::kLINEAR}, ids},
            {{DataType::kHALF, TensorFormat::kLINEAR}, ids},
            {kHalfHwc8, ids}};
  }
  std::vector<std::vector<Layout>> combinations;
  for (const DataType bias : {DataType::kFLOAT, DataType::kHALF}) {
    std::vector<Layout> layouts = {kHalfHwc8};
    for (int conv = 0; conv < convs_of(node); ++conv) {
      layouts.push_back(kHalfHwc8);
      layouts.push_back({bias, TensorFormat::kLINEAR});
    }
    layouts.push_back(kHalfHwc8);
    combinations.push_back(layouts);
  }
  return combinations;
}

std::vector<Node> good_nodes() {
  std::vector<Node> nodes = {upsample_node({1, 19, 5, 7}, DataType::kFLOAT),
                             upsample_node({2, 19, 9, 4}, DataType::kHALF),
                             upsample_node({1, 127, 3, 3}, DataType::kHALF),
                             upsample_node({3, 1, 1, 1}, DataType::kFLOAT)};
  for (int convs = 1; convs <= 2; ++convs) {
    for (int stride = 1; stride <= 2; ++stride) {
      nodes.push_back(zoomed_node({convs, stride, 2, 16, 24, 9, 14}));
      nodes.push_back(zoomed_node({convs, stride, 1, 40, 8, 22, 6, DataType::kFLOAT}));
      nodes.push_back(zoomed_node({convs, stride, 1, 8, 136, 2, 3, DataType::kHALF, false}));
    }
  }
  return nodes;
}

std::vector<Refused> bad_nodes() {
  const Node upsample = upsample_node({1, 19, 5, 7}, DataType::kHALF);
  const Node zoomed = zoomed_node({2, 1, 1, 16, 24, 8, 8});
  std::vector<Refused> refused = {
      {"scale is not 8", Refusal::kCreate, with_field(upsample, {"scale", {4}})},
      {"scale is two numbers", Refusal::kCreate, with_field(upsample, {"scale", {8, 8}})},
      {"logits are uint8", Refusal::kTypes,
       changed(upsample, 0, {{1, 19, 5, 7}, DataType::kUINT8})},
      {"logits have three dimensions", Refusal::kShapes,
       changed(upsample, 0, {{19, 5, 7}, DataType::kHALF})},
      {"more classes than int8 ids", Refusal::kShapes,
       changed(upsample, 0, {{1, 128, 5, 7}, DataType::kHALF})},
      {"half_sizes has three numbers", Refusal::kCreate,
       with_field(zoomed, {"half_sizes", {1, 16, 4}})},
      {"maps are float32", Refusal::kTypes, changed(zoomed, 0, {{1, 16, 8, 8}, DataType::kFLOAT})},
      {"weights are float32", Refusal::kTypes,
       changed(zoomed, 3, {{24, 24, 3, 3}, DataType::kFLOAT})},
      {"channels are not a multiple of 8", Refusal::kShapes, zoomed_node({1, 1, 1, 12, 8, 8, 8})},
      {"weights are of another map", Refusal::kShapes,
       changed(zoomed, 0, {{1, 24, 8, 8}, DataType::kHALF})},
      {"weights are 5x5", Refusal::kShapes, changed(zoomed, 1, {{24, 16, 5, 5}, DataType::kHALF})},
      {"the bias is too short", Refusal::kShapes, changed(zoomed, 4, {{16}, DataType::kHALF})},
      {"half_sizes is of another map", Refusal::kSizes,
       with_field(zoomed, {"half_sizes", {1, 16, 5, 4}})},
      {"out_sizes is of another map", Refusal::kSizes,
       with_field(zoomed, {"out_sizes", {1, 24, 8, 9}})},
      {"a side of 1 cannot be halved", Refusal::kSizes,
       zoomed_node({1, 1, 1, 8, 8, 1, 8, DataType::kHALF, false})}};
  Node short_of_inputs = zoomed;
  short_of_inputs.inputs.resize(3);
  refused.push_back({"inputs are missing", Refusal::kTypes, short_of_inputs});
  refused.push_back({"inputs are missing", Refusal::kShapes, short_of_inputs});
  return refused;
}

std::string described(const Node &node) {
  std::string text = node.plugin;
  for (const Tensor &input : node.inputs) {
    const char *separator = " ";
    for (const int64_t extent : input.shape) {
      text += separator + std::to_string(extent);
      separator = "x";
    }
    text += input.type == DataType::kFLOAT ? ":fp32" : ":fp16";
  }
  return text;
}

} // namespace harness
