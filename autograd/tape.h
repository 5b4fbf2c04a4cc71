#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "autograd/parameter.h"
#include "backends/sink.h"
#include "core/tensor.h"

namespace regla {

using Tensors = std::vector<Tensor>;

/// A value on the tape: a tensor, and the index of its gradient there (-1: a constant). An index
/// names the tape as well, so that a value of another tape is noticed.
struct Var {
  Tensor value;
  int64_t index = -1;

  Var() = default;
  Var(Tensor constant) : value(std::move(constant)) {}  // NOLINT: a tensor is a constant
  Var(Tensor tensor, int64_t gradient_index) : value(std::move(tensor)), index(gradient_index) {}

  bool defined() const { return value.defined(); }
  const Shape& shape() const { return value.shape(); }
  int64_t dim(int axis) const { return value.dim(axis); }
};

using Vars = std::vector<Var>;

class Gradient;

/// How x got into y = x W^T + b, and where the gradients of W and b go.
struct LinearUse {
  Tensor x, weight, d_y;
  Gradient *d_weight, *d_bias;
  int64_t first = 0;  // column of d_y among those of all layers that read x, if it lies there
};

/// The gradient of one tape entry while backward runs. It has the type of its value, or a narrower
/// one that backward reads it in (Op::narrows_gradient); a sum of several is taken in the type of
/// sums, and rounded when it is complete.
class Gradient {
 public:
  bool wanted() const { return wanted_; }
  /// Memory to write or add to, for a value of that shape; an undefined sink when nobody wants it.
  Sink sink(const Shape& shape, Device device);
  Sink sink(const Tensor& like) { return sink(like.shape(), like.device()); }
  /// The same as rows of so many columns. Those of linear layers that read the same x lie side by
  /// side where the device likes it, so that what the layers' gradients are is one product.
  RowsSink rows_sink(const Tensor& like, int64_t columns);
  /// The same with the sums of its columns, the gradient of the bias of the linear layer that gave
  /// the value: nobody computes that again then.
  LinearSink linear_sink(const Tensor& like, int64_t columns) {
    return {rows_sink(like, columns), sums_sink(like, columns)};
  }
  /// Takes a finished gradient. The first is adopted, and copied only if it is added to while
  /// others hold it, or for a parameter.
  void give(Tensor gradient);
  /// Adds d_y W, the gradient of x. That of all linear layers that read x is computed at once, and
  /// those of their weights with it: when it is asked for, or added to in another way.
  void add_linear(LinearUse use);

 private:
  friend class Tape;
  /// Computes what `add_linear` put off.
  void settle();
  /// Where the sums of columns go. Undefined where no linear layer gave the value, or where other
  /// ops read the value or the bias, too.
  Sink sums_sink(const Tensor& like, int64_t columns);
  /// Of the weights, one below the other where nothing is in them yet: one product writes all then.
  static std::vector<Sink> weight_sinks(const std::vector<LinearUse>& uses);
  /// Whether rows of so many columns are the whole gradient of what a linear layer gave.
  bool is_of_layer(int64_t columns) const {
    return wanted_ && uses_ == 1 && columns == layer_.columns;
  }
  Tensor& slot() { return parameter_ ? parameter_->gradient : tensor_; }
  /// What it is added up in.
  DType type_while_added() const { return parameter_ || uses_ > 1 ? sum_type(dtype_) : dtype_; }
  /// In its type, and no longer here.
  Tensor taken();
  bool empty() const { return parameter_ ? parameter_->gradient_empty : !tensor_.defined(); }

  bool wanted_ = false;
  bool borrowed_ = false;       // others may hold the memory
  bool shared_ = false;         // two inputs of the running op end here: both add to zeros
  Gradient* output_ = nullptr;  // of the running op, of which this is an input's
  Parameter* parameter_ = nullptr;
  DType dtype_ = DType::F32;  // when it is complete
  int64_t uses_ = 0;          // ops that read the value, and seeds
  int64_t node_ = -1;         // whose output this is the gradient of
  Tensor tensor_;
  std::vector<LinearUse> linears_;  // not computed yet

  /// Of what a linear layer gave, while backward runs.
  struct Layer {
    Gradient *x = nullptr, *bias = nullptr;
    int64_t columns = 0, end = 0;  // of y; in all layers up to this one that read x
    bool has_sums = false;         // the bias's gradient is there
  };
  /// Of what linear layers read.
  struct Readers {
    int64_t count = 0, columns = 0;
    bool fit = true;      // their gradients may lie side by side, the last layer's first
    Tensor side_by_side;  // [R, columns], once one of them does
  };
  Layer layer_;
  Readers readers_;
};

/// One differentiable function with its backward. What backward needs is kept in named members;
/// the tape destroys the op, and so frees them, as soon as its backward ran. Outputs that are cheap
/// to compute are not kept at all: the tape runs their op once more when backward needs them.
class Op {
 public:
  virtual ~Op() = default;
  virtual const char* name() const = 0;
  /// Outputs from inputs. An undefined input is an absent optional one.
  virtual Tensors forward(const Tensors& in) = 0;
  /// Adds to the gradients of the inputs. An undefined `d_out` entry is a zero; a `d_out` that is
  /// passed on unchanged may be moved from.
  virtual void backward(Tensors& d_out, std::vector<Gradient*>& d_in) = 0;

  /// The member that keeps that input for backward, if one does: the tape empties it where the
  /// input is cheap, and fills it again before backward.
  virtual Tensor* kept_input(size_t input) {
    static_cast<void>(input);
    return nullptr;
  }
  /// The W [N, D] of an op y = x W^T + b of inputs x, W and b, whose backward is `add_linear`.
  virtual const Tensor* linear_weight() const { return nullptr; }
  /// True where backward reads the gradient of its output in the type of its first input, or of
  /// that input's gradient: operands of products are narrow, and who passes a gradient on leaves it
  /// as it is.
  virtual bool narrows_gradient() const { return false; }
  /// True where forward is no more than a pass over the elements, small beside a product.
  virtual bool is_cheap() const { return false; }
};

/// Records ops in execution order while it lives, and runs them backwards: a flat list, a reverse
/// `for`, gradients by index. At most one tape records per thread, the youngest; none: inference.
class Tape {
 public:
  Tape();
  ~Tape();
  Tape(const Tape&) = delete;
  Tape& operator=(const Tape&) = delete;

  static Tape* current();

  /// A value whose gradient is wanted, readable by `gradient` after `backward`.
  Var leaf(Tensor value);
  /// A parameter as products read it; its gradient adds up in the parameter itself.
  Var parameter(Parameter& parameter);

  /// Runs the recorded ops in reverse from a scalar (seed 1) or from the given gradients.
  void backward(const Var& loss);
  /// An undefined seed is a zero; one that is moved in and shared with no one is taken over.
  void backward(Vars outputs, Tensors seeds);

  /// The gradient of a leaf; undefined when nothing reached it. It may share its memory with a seed
  /// or with another gradient.
  Tensor gradient(const Var& leaf) const;
  /// The same, given away: no other handle on it stays here.
  Tensor take_gradient(const Var& leaf);

  int64_t size() const { return static_cast<int64_t>(nodes_.size()); }

  /// Throw at the first op output or gradient that is not finite, naming the op and its scope.
  /// Slow: for finding the culprit after a loss went bad.
  void check_finite(bool on) { check_finite_ = on; }
  /// From now on keep outputs of cheap ops, too: more memory for less time.
  void keep_cheap(bool on) { keep_cheap_ = on; }
  /// Whether an op may give what a cheap one would beside its result: the current tape keeps that,
  /// or there is none to compute it again.
  static bool keeps_cheap() {
    const Tape* tape = current();
    return tape == nullptr || tape->keep_cheap_;
  }
  bool checks_finite() const { return check_finite_; }

 private:
  friend Vars apply(std::unique_ptr<Op> op, const Vars& in);
  friend class NoGrad;

  struct Node {
    std::unique_ptr<Op> op;
    std::vector<int64_t> inputs;  // indices of gradients; -1 for constants
    int64_t first_output;
    int64_t outputs;
    int64_t scope;
    bool repeats = false;  // its outputs are computed again: it is cheap and has its inputs
    Tensors again;         // those outputs, once backward asked for one
  };

  int64_t add_gradient(DType dtype, Parameter* parameter);
  /// Where the gradient of that index is kept; -1 when it belongs to another tape.
  int64_t place_of(int64_t index) const;
  Gradient& gradient_at(int64_t index) { return gradients_[static_cast<size_t>(place_of(index))]; }
  void record(std::unique_ptr<Op> op, const Vars& in, Vars& out);
  /// The node that computes that value again in backward; null where the value is kept.
  Node* repeating(int64_t index);
  const Tensor& again(int64_t index);
  /// Tells gradients which of them belong to linear layers.
  void find_linear_layers();
  void run_backward(Node& node);

  int64_t first_index_;
  std::vector<Node> nodes_;
  std::vector<Gradient> gradients_;
  std::unordered_map<Parameter*, int64_t> parameters_;
  bool check_finite_ = false, keep_cheap_ = false;
  Tape* outer_ = nullptr;
};

/// Whether a gradient is the 1 that `Tape::backward(loss)` begins with. No value is read.
bool is_unit_seed(const Tensor& gradient);

/// Runs `op` on the inputs and, when a tape records and an input is on it, remembers it.
Vars apply(std::unique_ptr<Op> op, const Vars& in);

/// Turns recording off while it lives.
class NoGrad {
 public:
  NoGrad();
  ~NoGrad();
  NoGrad(const NoGrad&) = delete;
  NoGrad& operator=(const NoGrad&) = delete;

 private:
  Tape* hidden_;
};

/// Names the part of the model that runs while it lives ("layers.3.mixer"), for error messages.
class Scope {
 public:
  explicit Scope(const std::string& name);
  ~Scope();
  Scope(const Scope&) = delete;
  Scope& operator=(const Scope&) = delete;

 private:
  int64_t outer_;
};

/// A parameter on the current tape, or as a constant when none records: its copy where there is
/// one, for products.
Var use(Parameter& parameter);
/// The same, but always the master.
Var use_master(Parameter& parameter);
/// The same, but whichever of both is of that type.
Var use_in(DType dtype, Parameter& parameter);

}  // namespace regla
