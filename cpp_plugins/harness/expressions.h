// Dimensions as expressions, in place of TensorRT's: what getOutputShapes is given and builds.
#pragma once

#include <algorithm>
#include <cstdint>
#include <deque>
#include <functional>
#include <limits>
#include <utility>
#include <vector>

#include <NvInferRuntime.h>

namespace harness {

// A constant, or a function of the symbols' values.
class Expression final : public nvinfer1::IDimensionExpr {
public:
  using Evaluate = std::function<int64_t(const std::vector<int64_t> &)>;

  Expression(bool constant, Evaluate evaluate) : evaluate_(std::move(evaluate)) {
    answers_.constant = constant;
    answers_.value = constant ? evaluate_({}) : std::numeric_limits<int64_t>::min();
    mImpl = &answers_;
  }

  int64_t at(const std::vector<int64_t> &symbols) const { return evaluate_(symbols); }

private:
  struct Answers final : nvinfer1::apiv::VDimensionExpr {
    bool constant = false;
    int64_t value = 0;
    bool isConstant() const override { return constant; }
    int64_t getConstantValue() const override { return value; }
    bool isSizeTensor() const override { return false; }
  };
  Answers answers_;
  Evaluate evaluate_;
};

// Owns what it builds.
class Expressions final : public nvinfer1::IExprBuilder {
public:
  Expressions() : answers_(*this) { mImpl = &answers_; }

  const Expression *number(int64_t value) {
    return make(true, [value](const std::vector<int64_t> &) { return value; });
  }

  const Expression *symbol(size_t index) {
    return make(false, [index](const std::vector<int64_t> &symbols) { return symbols.at(index); });
  }

private:
  const Expression *make(bool constant, Expression::Evaluate evaluate) {
    return &made_.emplace_back(constant, std::move(evaluate));
  }

  static int64_t apply(nvinfer1::DimensionOperation operation, int64_t a, int64_t b) {
    using Op = nvinfer1::DimensionOperation;
    switch (operation) {
    case Op::kSUM:
      return a + b;
    case Op::kPROD:
      return a * b;
    case Op::kMAX:
      return std::max(a, b);
    case Op::kMIN:
      return std::min(a, b);
    case Op::kSUB:
      return a - b;
    case Op::kEQUAL:
      return a == b;
    case Op::kLESS:
      return a < b;
    case Op::kFLOOR_DIV:
      return a / b;
    case Op::kCEIL_DIV:
      return (a + b - 1) / b;
    }
    return -1;
  }

  struct Answers final : nvinfer1::apiv::VExprBuilder {
    explicit Answers(Expressions &owner) : owner_(owner) {}

    const nvinfer1::IDimensionExpr *constant(int64_t value) override {
      return owner_.number(value);
    }

    const nvinfer1::IDimensionExpr *operation(nvinfer1::DimensionOperation op,
                                              const nvinfer1::IDimensionExpr &first,
                                              const nvinfer1::IDimensionExpr &second) override {
      const auto &a = static_cast<const Expression &>(first);
      const auto &b = static_cast<const Expression &>(second);
      return owner_.make(a.isConstant() && b.isConstant(),
                         [op, &a, &b](const std::vector<int64_t> &symbols) {
                           return apply(op, a.at(symbols), b.at(symbols));
                         });
    }

    const nvinfer1::IDimensionExpr *
    declareSizeTensor(int32_t, const nvinfer1::IDimensionExpr &,
                      const nvinfer1::IDimensionExpr &) override {
      return nullptr; // no plugin of ours has an output whose size depends on values
    }

    Expressions &owner_;
  };

  Answers answers_;
  std::deque<Expression> made_; // a deque never moves its elements
};

} // namespace harness
