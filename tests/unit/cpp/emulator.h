// Runs the bodies of CUDA kernels on the CPU, one fiber per thread, with the meaning of barriers.
//
// A fiber runs until it reaches a barrier or a warp-wide operation, and a warp runs alone until all
// of it waits for the block, in an order that the caller chooses. A missing barrier therefore shows
// up: the first warp reads shared memory that others have not written yet, which is poisoned, or
// overwrites what they have not read yet.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <exception>
#include <functional>
#include <numeric>
#include <optional>
#include <random>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <ucontext.h>
#include <vector>

#include "half.h"
#include "launch.h"

namespace emulator {

constexpr int kLanes = 32;

struct Block {
  int tile, slice, image;
};

// What a lane brings to a warp-wide operation and takes from it.
struct Exchange {
  enum class Kind { kNone, kBlock, kWarp, kBallot, kMax, kMatrices, kProduct };
  bool vote = false;
  uint32_t ballot = 0;
  float value = 0.0f;
  const void *row = nullptr;
  uint32_t *matrices = nullptr;
  float *sums = nullptr;
  const uint32_t *a = nullptr;
  uint32_t b[2] = {0, 0};
};

class Scheduler;

// The host's counterpart of DeviceTeam: one thread's view of its block.
class Team {
public:
  Team(Scheduler &scheduler, int thread, Block block)
      : scheduler_(scheduler), thread_(thread), block_(block) {}

  int thread() const { return thread_; }
  int lane() const { return thread_ % kLanes; }
  int warp() const { return thread_ / kLanes; }
  int tile() const { return block_.tile; }
  int slice() const { return block_.slice; }
  int image() const { return block_.image; }

  void sync() { meet(Exchange::Kind::kBlock); }
  void sync_warp() { meet(Exchange::Kind::kWarp); }

  uint32_t ballot(bool vote) {
    exchange.vote = vote;
    meet(Exchange::Kind::kBallot);
    return exchange.ballot;
  }

  float warp_max(float value) {
    exchange.value = value;
    meet(Exchange::Kind::kMax);
    return exchange.value;
  }

  void load_matrices(uint32_t (&matrices)[4], const void *row) {
    exchange.row = row;
    exchange.matrices = matrices;
    meet(Exchange::Kind::kMatrices);
  }

  void multiply_add(float (&sums)[4], const uint32_t (&a)[4], uint32_t b_low, uint32_t b_high) {
    exchange.sums = sums;
    exchange.a = a;
    exchange.b[0] = b_low;
    exchange.b[1] = b_high;
    meet(Exchange::Kind::kProduct);
  }

  Exchange exchange;

private:
  void meet(Exchange::Kind kind);

  Scheduler &scheduler_;
  int thread_;
  Block block_;
};

// Element (row, column) of an operand of mma.m16n8k16, fp16, as the PTX manual lays it over lanes.
inline float element_of_a(Exchange *const *lanes, int row, int column) {
  const int lane = row % 8 * 4 + column % 8 / 2;
  const uint32_t word = lanes[lane]->a[row / 8 + column / 8 * 2];
  return fasterseg::to_float(fasterseg::Half{static_cast<uint16_t>(word >> (column % 2 * 16))});
}

inline float element_of_b(Exchange *const *lanes, int row, int column) {
  const int lane = column * 4 + row % 8 / 2;
  const uint32_t word = lanes[lane]->b[row / 8];
  return fasterseg::to_float(fasterseg::Half{static_cast<uint16_t>(word >> (row % 2 * 16))});
}

inline void product(Exchange *const *lanes) {
  float a[16][16], b[16][8];
  for (int row = 0; row < 16; ++row) {
    for (int column = 0; column < 16; ++column) {
      a[row][column] = element_of_a(lanes, row, column);
    }
    for (int column = 0; column < 8; ++column) {
      b[row][column] = element_of_b(lanes, row, column);
    }
  }
  for (int row = 0; row < 16; ++row) {
    for (int column = 0; column < 8; ++column) {
      float &sum = lanes[row % 8 * 4 + column / 2]->sums[row / 8 * 2 + column % 2];
      for (int depth = 0; depth < 16; ++depth) {
        sum += a[row][depth] * b[depth][column];
      }
    }
  }
}

// ldmatrix.x4: lane i names row i % 8 of matrix i / 8 and gets two values of row i / 4 of each.
inline void load_matrices(Exchange *const *lanes) {
  for (int lane = 0; lane < kLanes; ++lane) {
    for (int matrix = 0; matrix < 4; ++matrix) {
      const void *const row = lanes[matrix * 8 + lane / 4]->row;
      if (reinterpret_cast<uintptr_t>(row) % 16 != 0) {
        throw std::logic_error("ldmatrix row is not 16-byte aligned");
      }
      std::memcpy(lanes[lane]->matrices + matrix, static_cast<const char *>(row) + lane % 4 * 4, 4);
    }
  }
}

inline void carry_out(Exchange::Kind kind, Exchange *const *lanes) {
  uint32_t ballot = 0;
  float most = lanes[0]->value;
  for (int lane = 0; lane < kLanes; ++lane) {
    ballot |= static_cast<uint32_t>(lanes[lane]->vote) << lane;
    most = fmaxf(most, lanes[lane]->value);
  }
  switch (kind) {
  case Exchange::Kind::kBallot:
    std::for_each(lanes, lanes + kLanes, [&](Exchange *own) { own->ballot = ballot; });
    break;
  case Exchange::Kind::kMax:
    std::for_each(lanes, lanes + kLanes, [&](Exchange *own) { own->value = most; });
    break;
  case Exchange::Kind::kMatrices:
    load_matrices(lanes);
    break;
  case Exchange::Kind::kProduct:
    product(lanes);
    break;
  default:
    break;
  }
}

// Order in which ready threads run: up, down, or shuffled by a seed above 1.
class Scheduler {
public:
  Scheduler(int threads, unsigned order)
      : fibers_(static_cast<size_t>(threads)), order_(order), random_(order) {
    if (threads % kLanes != 0) {
      throw std::logic_error("blocks are whole warps");
    }
    for (Fiber &fiber : fibers_) {
      fiber.stack.resize(size_t{1} << 16);
    }
  }

  // Runs `body` in every thread of a block.
  void run(Block block, const std::function<void(Team &)> &body) {
    body_ = &body;
    active_ = this;
    for (size_t thread = 0; thread < fibers_.size(); ++thread) {
      Fiber &fiber = fibers_[thread];
      fiber.team.emplace(*this, static_cast<int>(thread), block);
      fiber.waits = Exchange::Kind::kNone;
      fiber.done = false;
      prepare(fiber);
    }
    while (advance()) {
    }
  }

  void pause(Exchange::Kind kind) {
    Fiber &fiber = *running_;
    fiber.waits = kind;
    swapcontext(&fiber.context, &main_);
  }

private:
  struct Fiber {
    ucontext_t context;
    std::vector<char> stack;
    std::optional<Team> team;
    Exchange::Kind waits = Exchange::Kind::kNone;
    bool done = false;
  };

  void prepare(Fiber &fiber) {
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.data();
    fiber.context.uc_stack.ss_size = fiber.stack.size();
    fiber.context.uc_link = &main_;
    makecontext(&fiber.context, &Scheduler::enter, 0);
  }

  static void enter() {
    Fiber &fiber = *active_->running_;
    (*active_->body_)(*fiber.team);
    fiber.done = true;
  }

  // 0 to count - 1 in the order that the scheduler was given.
  std::vector<size_t> queue(size_t count) {
    std::vector<size_t> numbers(count);
    std::iota(numbers.begin(), numbers.end(), size_t{0});
    if (order_ == 1) {
      std::reverse(numbers.begin(), numbers.end());
    } else if (order_ > 1) {
      std::shuffle(numbers.begin(), numbers.end(), random_);
    }
    return numbers;
  }

  // Runs one warp after the other, each as far ahead as it can get by itself, then opens the
  // block's barrier.
  bool advance() {
    for (const size_t warp : queue(fibers_.size() / kLanes)) {
      do {
        for (const size_t lane : queue(kLanes)) {
          resume(fibers_[warp * kLanes + lane]);
        }
      } while (open_warp(warp * kLanes));
    }
    if (std::all_of(fibers_.begin(), fibers_.end(), [](const Fiber &f) { return f.done; })) {
      return false;
    }
    if (!open_block()) {
      throw std::logic_error("deadlock: a barrier or a warp operation misses some of its threads");
    }
    return true;
  }

  void resume(Fiber &fiber) {
    if (!fiber.done && fiber.waits == Exchange::Kind::kNone) {
      running_ = &fiber;
      swapcontext(&main_, &fiber.context);
    }
  }

  // Carries out the operation at which all lanes of a warp have met.
  bool open_warp(size_t first) {
    const Exchange::Kind kind = fibers_[first].waits;
    Exchange *lanes[kLanes];
    bool complete = kind != Exchange::Kind::kNone && kind != Exchange::Kind::kBlock;
    for (size_t lane = 0; lane < kLanes; ++lane) {
      complete = complete && fibers_[first + lane].waits == kind;
      lanes[lane] = &fibers_[first + lane].team->exchange;
    }
    if (complete) {
      carry_out(kind, lanes);
      release(first, kLanes);
    }
    return complete;
  }

  bool open_block() {
    const bool complete = std::all_of(fibers_.begin(), fibers_.end(), [](const Fiber &f) {
      return !f.done && f.waits == Exchange::Kind::kBlock;
    });
    if (complete) {
      release(0, fibers_.size());
    }
    return complete;
  }

  void release(size_t first, size_t count) {
    for (size_t index = first; index < first + count; ++index) {
      fibers_[index].waits = Exchange::Kind::kNone;
    }
  }

  std::vector<Fiber> fibers_;
  unsigned order_;
  std::mt19937 random_;
  ucontext_t main_{};
  Fiber *running_ = nullptr;
  const std::function<void(Team &)> *body_ = nullptr;
  inline static thread_local Scheduler *active_ = nullptr;
};

inline void Team::meet(Exchange::Kind kind) { scheduler_.pause(kind); }

// Order of the next launches; see Scheduler.
inline unsigned order = 0;

// What went wrong in the last launch that answered kFailed.
inline std::string failure;
constexpr int32_t kFailed = 999;

} // namespace emulator

namespace fasterseg {

// Every block in turn, shared memory filled with NaN before each.
template <class Kernel>
int32_t launch(const Grid &grid, const typename Kernel::Params &params, void *) {
  using Shared = typename Kernel::Shared;
  static_assert(std::is_trivially_copyable_v<Shared>);
  try {
    emulator::Scheduler scheduler(Kernel::kThreads, emulator::order);
    std::vector<Shared> shared(1);
    for (int64_t block = 0; block < grid.tiles * grid.slices * grid.images; ++block) {
      std::memset(static_cast<void *>(shared.data()), 0xff, sizeof(Shared));
      const int64_t row = block / grid.tiles;
      scheduler.run({static_cast<int>(block % grid.tiles), static_cast<int>(row % grid.slices),
                     static_cast<int>(row / grid.slices)},
                    [&](emulator::Team &team) { Kernel::run(team, params, shared.front()); });
    }
  } catch (const std::exception &error) {
    emulator::failure = error.what();
    return emulator::kFailed;
  }
  return 0;
}

inline const char *launch_error(int32_t) { return emulator::failure.c_str(); }

} // namespace fasterseg
