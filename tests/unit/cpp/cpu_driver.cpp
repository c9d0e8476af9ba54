// One call of a CPU kernel from the command line, for CPUs that this machine is not (under an
// emulator) and for sanitizers. Inputs come from standard input, one array after the other, the
// output goes to standard output; every array is a block of its own and exactly as large as it is.
//
//   driver isa                                            name of the best instruction set
//   driver labels ISA THREADS N C h w FULL_H FULL_W H W   logits -> labels
//   driver blend ISA THREADS H W ALPHA                    frame, labels, palette -> output
//   driver normalize ISA THREADS N H W MEAN3 STD3         frames -> output
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <initializer_list>
#include <memory>

#include "fasterseg_cpu.h"

namespace {

template <class T> struct Block {
  std::size_t count;
  std::unique_ptr<T[]> values;

  explicit Block(std::size_t size) : count(size), values(new T[size]) {}
  T *data() { return values.get(); }
};

template <class T> Block<T> read(std::size_t count) {
  Block<T> block(count);
  if (std::fread(block.data(), sizeof(T), count, stdin) != count) {
    std::fputs("too little on standard input\n", stderr);
    std::exit(2);
  }
  return block;
}

template <class T> int finish(int32_t result, Block<T> &output) {
  if (result != 0) {
    std::fprintf(stderr, "%s\n", fasterseg_cpu_message(result));
    return 1;
  }
  std::fwrite(output.data(), sizeof(T), output.count, stdout);
  return 0;
}

std::size_t product(std::initializer_list<int32_t> sides) {
  std::size_t all = 1;
  for (const int32_t side : sides) {
    all *= static_cast<std::size_t>(side);
  }
  return all;
}

int labels(int32_t isa, int32_t threads, char **text) {
  int32_t n[8];
  for (int index = 0; index < 8; ++index) {
    n[index] = std::atoi(text[index]);
  }
  Block<float> logits = read<float>(product({n[0], n[1], n[2], n[3]}));
  Block<uint8_t> output(product({n[0], n[6], n[7]}));
  FasterSegCpuUpsampleArgmax call = {};
  call.logits = logits.data();
  call.labels = output.data();
  call.batch = n[0];
  call.classes = n[1];
  call.height = n[2];
  call.width = n[3];
  call.full_height = n[4];
  call.full_width = n[5];
  call.out_height = n[6];
  call.out_width = n[7];
  call.isa = isa;
  call.threads = threads;
  return finish(fasterseg_cpu_upsample_argmax(&call), output);
}

int blend(int32_t isa, int32_t threads, char **text) {
  const int32_t height = std::atoi(text[0]), width = std::atoi(text[1]);
  Block<uint8_t> frame = read<uint8_t>(product({height, width, 3}));
  Block<uint8_t> classes = read<uint8_t>(product({height, width}));
  Block<uint8_t> palette = read<uint8_t>(3 * 256);
  Block<uint8_t> output(product({height, width, 3}));
  const FasterSegCpuBlend call = {frame.data(), classes.data(), palette.data(), output.data(),
                                  height, width, std::atof(text[2]), isa, threads};
  return finish(fasterseg_cpu_blend(&call), output);
}

int normalize(int32_t isa, int32_t threads, char **text) {
  const int32_t batch = std::atoi(text[0]), height = std::atoi(text[1]), width = std::atoi(text[2]);
  Block<uint8_t> frames = read<uint8_t>(product({batch, height, width, 3}));
  Block<float> output(product({batch, height, width, 3}));
  FasterSegCpuNormalizeBgr call = {frames.data(), output.data(), batch, height, width, isa,
                                   threads, {}, {}};
  for (int channel = 0; channel < 3; ++channel) {
    call.mean[channel] = std::atof(text[3 + channel]);
    call.std[channel] = std::atof(text[6 + channel]);
  }
  return finish(fasterseg_cpu_normalize_bgr(&call), output);
}

} // namespace

int main(int count, char **text) {
  if (count == 2 && !std::strcmp(text[1], "isa")) {
    std::puts(fasterseg_cpu_isa_name(fasterseg_cpu_isa(nullptr)));
    return 0;
  }
  const char *const name = count > 3 ? text[1] : "";
  const int32_t isa = count > 3 ? fasterseg_cpu_isa(text[2]) : 0;
  if (isa < 0) {
    std::fprintf(stderr, "%s\n", fasterseg_cpu_message(isa));
    return 1;
  }
  if (count == 12 && !std::strcmp(name, "labels")) {
    return labels(isa, std::atoi(text[3]), text + 4);
  }
  if (count == 7 && !std::strcmp(name, "blend")) {
    return blend(isa, std::atoi(text[3]), text + 4);
  }
  if (count == 13 && !std::strcmp(name, "normalize")) {
    return normalize(isa, std::atoi(text[3]), text + 4);
  }
  std::fputs("see the top of cpu_driver.cpp\n", stderr);
  return 2;
}
