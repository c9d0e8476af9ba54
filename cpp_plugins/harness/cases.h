// Nodes to drive plugins with: attributes, inputs, and what must come of them.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include <NvInferRuntime.h>

namespace harness {

using nvinfer1::DataType;
using nvinfer1::TensorFormat;
using Shape = std::vector<int64_t>;

struct Tensor {
  Shape shape;
  DataType type;
};

struct Field {
  std::string name;
  std::vector<int32_t> values;
};

struct Node {
  std::string plugin;
  std::vector<Field> fields;
  std::vector<Tensor> inputs;
  Tensor output;
};

// What the plugins demand of one tensor.
struct Layout {
  DataType type;
  TensorFormat format;
  bool operator==(const Layout &other) const {
    return type == other.type && format == other.format;
  }
};

Node upsample_node(const Shape &logits, DataType type);

struct Zoomed {
  int convs, stride;
  int64_t batch, in_channels, out_channels, height, width;
  DataType bias = DataType::kHALF;
  bool sizes = true; // whether the node has its attributes of sizes
};

Node zoomed_node(const Zoomed &zoomed);

// Accepted layouts of all inputs and the output, one list per accepted combination.
std::vector<std::vector<Layout>> layouts_of(const Node &node);

// The number of convolutions of a zoomed node, 0 for another.
int convs_of(const Node &node);
int stride_of(const Node &node);

// A node that must be refused, and where: at createPlugin, by types, by shapes, or by run time
// sizes.
enum class Refusal { kCreate, kTypes, kShapes, kSizes };
struct Refused {
  std::string why;
  Refusal where;
  Node node;
};

std::vector<Node> good_nodes();
std::vector<Refused> bad_nodes();

std::string described(const Node &node);

} // namespace harness
