#include "autograd/tape.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <map>
#include <utility>

#include "autograd/ops/op.h"
#include "backends/copies.h"
#include "backends/kernels.h"
#include "backends/linear.h"
#include "core/check.h"

namespace regla {
namespace {

thread_local Tape* current_tape = nullptr;

/// Where the indices of a new tape start. Tapes are far apart: a million ops fit between them.
int64_t next_first_index() {
  static std::atomic<int64_t> tapes = 0;
  constexpr int64_t kTapes = int64_t{1} << 31;
  return (tapes++ % kTapes) << 32;
}

/// Scope names, each once; a node keeps a number.
thread_local std::vector<std::string> scope_names = {""};
thread_local int64_t current_scope = 0;

/// A 1 of each type on each device, in the same memory every time: it can be told without reading.
const Tensor& unit_seed(DType dtype, Device device) {
  thread_local std::map<std::pair<DType, Device>, Tensor> seeds;
  Tensor& seed = seeds[{dtype, device}];
  if (!seed) seed = Tensor::full({1}, 1, dtype, device);
  return seed;
}

void require_finite(const Tensor& tensor, const Op& op, const std::string& scope,
                    const char* what) {
  if (!tensor.defined() || tensor.dtype() == DType::I32) return;
  if (kernels(tensor.device()).all_finite(tensor)) return;
  fail("the first tensor that is not finite is the ", what, " of `", op.name(), "`",
       scope.empty() ? "" : " in " + scope, ", ", tensor.shape());
}

}  // namespace

Sink Gradient::sink(const Shape& shape, Device device) {
  if (!wanted_) return {};
  settle();
  if (!empty()) {
    if (borrowed_ && !tensor_.unique()) tensor_ = tensor_.clone();
    borrowed_ = false;
    return {slot(), true};
  }
  slot() = Tensor::empty(shape, type_while_added(), device);
  if (parameter_) parameter_->gradient_empty = false;
  if (shared_) slot().fill(0);
  return {slot(), shared_};
}

void Gradient::give(Tensor gradient) {
  if (!wanted_) return;
  settle();
  if (empty()) gradient = converted(std::move(gradient), type_while_added());
  // A parameter's gradient outlives the tape, so it borrows nothing.
  if (empty() && (!parameter_ || gradient.unique())) {
    borrowed_ = !gradient.unique();
    slot() = std::move(gradient);
    if (parameter_) parameter_->gradient_empty = false;
    return;
  }
  const Sink sum = sink(gradient.shape(), gradient.device());
  kernels(gradient.device()).accumulate(gradient, 1, sum);
}

RowsSink Gradient::rows_sink(const Tensor& like, int64_t columns) {
  const Shape shape = {columns == 0 ? 0 : like.numel() / columns, columns};
  Gradient* const x = layer_.x;
  if (is_of_layer(columns) && x != nullptr && x->readers_.fit && x->readers_.count > 1) {
    Tensor& all = x->readers_.side_by_side;
    if (!all) all = Tensor::empty({shape[0], x->readers_.columns}, dtype_, like.device());
    tensor_ = all;
    return {{all}, x->readers_.columns - layer_.end};
  }
  Sink dense = sink(like);
  if (dense) dense.tensor = dense.tensor.reshape(shape);
  return {dense};
}

Sink Gradient::sums_sink(const Tensor& like, int64_t columns) {
  Gradient* const bias = layer_.bias;
  if (!is_of_layer(columns) || bias == nullptr || bias->uses_ != 1) return {};
  layer_.has_sums = true;
  return bias->sink({columns}, like.device());
}

void Gradient::add_linear(LinearUse use) {
  if (output_->layer_.has_sums) use.d_bias = nullptr;
  use.first = readers_.columns - output_->layer_.end;
  linears_.push_back(std::move(use));
  // Nobody will ask, or the weight is the same value.
  if (!wanted_ || parameter_ || shared_) settle();
}

std::vector<Sink> Gradient::weight_sinks(const std::vector<LinearUse>& uses) {
  constexpr int64_t kRound = 256;  // bytes: each begins where memory of its own might
  int64_t rows = 0;
  bool are_new = uses.size() > 1;
  for (const LinearUse& use : uses) {
    const Gradient& gradient = *use.d_weight;
    const bool is_twice = std::any_of(&uses.front(), &use, [&](const LinearUse& other) {
      return other.d_weight == use.d_weight;
    });
    are_new = are_new && gradient.wanted_ && gradient.parameter_ && gradient.empty() &&
              !gradient.shared_ && !is_twice && use.weight.bytes() % kRound == 0;
    rows += use.weight.dim(0);
  }
  std::vector<Sink> sinks;
  if (!are_new) {
    for (const LinearUse& use : uses) sinks.push_back(use.d_weight->sink(use.weight));
    return sinks;
  }
  const Tensor& like = uses.front().weight;
  const DType type = uses.front().d_weight->type_while_added();
  const Tensor all = Tensor::empty({rows, like.dim(1)}, type, like.device());
  int64_t row = 0;
  for (const LinearUse& use : uses) {
    const int64_t end = row + use.weight.dim(0);
    use.d_weight->slot() = all.slice(row, end);
    use.d_weight->parameter_->gradient_empty = false;
    sinks.push_back({use.d_weight->slot()});
    row = end;
  }
  return sinks;
}

void Gradient::settle() {
  if (linears_.empty()) return;
  const std::vector<LinearUse> uses = std::exchange(linears_, {});
  const Tensor& x = uses.front().x;
  LinearGradients args = {.x = as_rows(x), .side_by_side = {}, .parts = {}};
  // Where a layer is missing, since no gradient reached it, there is a gap between the others.
  Tensor& all = readers_.side_by_side;
  const bool are_all = readers_.count == static_cast<int64_t>(uses.size());
  const std::vector<Sink> d_weights = weight_sinks(uses);
  for (size_t i = 0; i < uses.size(); ++i) {
    const LinearUse& use = uses[i];
    const int64_t N = use.weight.dim(0);
    const bool lies_there = all && use.d_y.shares_memory_with(all);
    LinearGradients::Part part = {
        .d_y = {}, .weight = use.weight, .d_weight = d_weights[i], .d_bias = {}};
    if (!lies_there) part.d_y = use.d_y.reshape({args.x.dim(0), N});
    if (lies_there && !are_all) part.d_y = copied_rows(all, use.first, N);
    if (use.d_bias != nullptr) part.d_bias = use.d_bias->sink({N}, x.device());
    args.parts.push_back(std::move(part));
  }
  if (are_all) args.side_by_side = std::exchange(all, {});
  Sink d_x;
  if (wanted_ && !parameter_ && empty() && uses_ == static_cast<int64_t>(uses.size())) {
    tensor_ = Tensor::empty(x.shape(), dtype_, x.device());  // the kernel adds them all up
    d_x = {tensor_};
  } else {
    d_x = sink(x);
  }
  if (d_x) d_x.tensor = as_rows(d_x.tensor);
  kernels(x.device()).linear_backward(args, d_x);
}

Tensor Gradient::taken() {
  settle();
  return converted(std::exchange(tensor_, {}), dtype_);
}

Tape::Tape() : first_index_(next_first_index()), outer_(current_tape) { current_tape = this; }

Tape::~Tape() {
  current_tape = outer_;
  // Later ops hold what earlier ones made: free from the end, as backward would.
  while (!nodes_.empty()) nodes_.pop_back();
}

Tape* Tape::current() { return current_tape; }

int64_t Tape::add_gradient(DType dtype, Parameter* parameter) {
  Gradient gradient;
  gradient.wanted_ = true;
  gradient.dtype_ = dtype;
  gradient.parameter_ = parameter;
  gradients_.push_back(std::move(gradient));
  return first_index_ + static_cast<int64_t>(gradients_.size()) - 1;
}

int64_t Tape::place_of(int64_t index) const {
  const int64_t place = index - first_index_;
  return place >= 0 && place < static_cast<int64_t>(gradients_.size()) ? place : -1;
}

Var Tape::leaf(Tensor value) {
  const int64_t index = add_gradient(value.dtype(), nullptr);
  return {std::move(value), index};
}

Var Tape::parameter(Parameter& parameter) {
  auto [place, is_new] = parameters_.try_emplace(&parameter, 0);
  if (is_new) place->second = add_gradient(parameter.value.dtype(), &parameter);
  return {parameter.factor(), place->second};
}

Vars apply(std::unique_ptr<Op> op, const Vars& in) {
  Tensors values;
  values.reserve(in.size());
  for (const Var& var : in) values.push_back(var.value);
  common_device(op->name(), values);
  Tensors results = op->forward(values);
  Tape* tape = current_tape;
  if (tape && tape->check_finite_) {
    for (const Tensor& result : results) {
      require_finite(result, *op, scope_names[static_cast<size_t>(current_scope)], "output");
    }
  }
  Vars out(results.begin(), results.end());
  if (tape) tape->record(std::move(op), in, out);
  return out;
}

void Tape::record(std::unique_ptr<Op> op, const Vars& in, Vars& out) {
  Node node{.op = std::move(op),
            .inputs = {},
            .first_output = first_index_ + static_cast<int64_t>(gradients_.size()),
            .outputs = static_cast<int64_t>(out.size()),
            .scope = current_scope,
            .again = {}};
  bool wanted = false;
  for (const Var& var : in) {
    check(var.index < 0 || place_of(var.index) >= 0, "[tape] `", node.op->name(),
          "` got a value of another tape");
    node.inputs.push_back(var.index);
    wanted = wanted || var.index >= 0;
  }
  if (!wanted) return;
  for (const Var& var : in) {
    if (var.index >= 0) ++gradient_at(var.index).uses_;
  }
  node.repeats = node.op->is_cheap() && !keep_cheap_;
  for (size_t i = 0; i < in.size(); ++i) {
    Tensor* kept = node.op->kept_input(i);
    const bool comes_again = repeating(in[i].index) != nullptr;
    if (kept && comes_again) *kept = {};
    node.repeats = node.repeats && (kept || comes_again || !in[i].defined());
  }
  DType narrow = in[0].value.dtype();
  if (in[0].index >= 0) narrow = gradient_at(in[0].index).dtype_;
  for (Var& var : out) {
    const DType type = node.op->narrows_gradient() ? narrow : var.value.dtype();
    const int64_t index = add_gradient(type, nullptr);
    gradient_at(index).node_ = size();
    if (var.defined()) var.index = index;
  }
  nodes_.push_back(std::move(node));
}

Tape::Node* Tape::repeating(int64_t index) {
  const int64_t place = index < 0 ? -1 : gradient_at(index).node_;
  Node* node = place < 0 ? nullptr : &nodes_[static_cast<size_t>(place)];
  return node && node->repeats ? node : nullptr;
}

const Tensor& Tape::again(int64_t index) {
  Node& node = *repeating(index);
  if (node.again.empty()) {
    Tensors in;
    for (size_t i = 0; i < node.inputs.size(); ++i) {
      const Tensor* kept = node.op->kept_input(i);
      in.push_back(repeating(node.inputs[i]) ? again(node.inputs[i]) : kept ? *kept : Tensor{});
    }
    node.again = node.op->forward(in);
  }
  return node.again[static_cast<size_t>(index - node.first_output)];
}

bool is_unit_seed(const Tensor& gradient) {
  return gradient.shares_memory_with(unit_seed(gradient.dtype(), gradient.device()));
}

void Tape::backward(const Var& loss) {
  check(loss.defined() && loss.value.numel() == 1, "[backward] expected a scalar, got ",
        loss.defined() ? loss.shape() : Shape{});
  backward({loss},
           {unit_seed(loss.value.dtype(), loss.value.device()).reshape(loss.value.shape())});
}

void Tape::backward(Vars outputs, Tensors seeds) {
  check(outputs.size() == seeds.size(), "[backward] expected one seed per output");
  for (size_t i = 0; i < outputs.size(); ++i) {
    if (outputs[i].index < 0 || !seeds[i].defined()) continue;
    check(seeds[i].shape() == outputs[i].shape(), "[backward] expected a gradient of ",
          outputs[i].shape(), ", got ", seeds[i].shape());
    check(place_of(outputs[i].index) >= 0, "[backward] got a value of another tape");
    ++gradient_at(outputs[i].index).uses_;
    gradient_at(outputs[i].index).give(std::move(seeds[i]));
  }
  outputs.clear();  // the values are no longer needed
  find_linear_layers();
  // Backward functions call kernels, not ops: nothing may be recorded meanwhile.
  NoGrad guard;
  while (!nodes_.empty()) {
    run_backward(nodes_.back());
    nodes_.pop_back();
  }
  for (Gradient& gradient : gradients_) gradient.settle();
}

void Tape::find_linear_layers() {
  for (const Node& node : nodes_) {
    const Tensor* weight = node.op->linear_weight();
    if (weight == nullptr) continue;
    const auto of_input = [&](size_t i) {
      return node.inputs[i] < 0 ? nullptr : &gradient_at(node.inputs[i]);
    };
    Gradient& y = gradient_at(node.first_output);
    y.layer_ = {.x = of_input(0), .bias = of_input(2), .columns = weight->dim(0)};
    if (y.layer_.x == nullptr) continue;
    Gradient::Readers& readers = y.layer_.x->readers_;
    y.layer_.end = readers.columns += weight->dim(0);
    ++readers.count;
    // What is checked may hold nothing that others are still to write.
    const int64_t multiple = check_finite_ ? 0 : kernels(weight->device()).side_by_side;
    readers.fit = readers.fit && multiple > 0 && y.dtype_ == DType::BF16 &&
                  weight->dtype() == DType::BF16 && weight->dim(0) % multiple == 0 &&
                  weight->dim(1) % multiple == 0 && readers.count <= kMostSideBySide;
  }
}

void Tape::run_backward(Node& node) {
  Tensors d_out;
  bool reached = false;
  for (int64_t i = 0; i < node.outputs; ++i) {
    d_out.push_back(gradient_at(node.first_output + i).taken());
    reached = reached || d_out.back().defined();
  }
  if (!reached) return;
  for (size_t i = 0; i < node.inputs.size(); ++i) {
    Tensor* kept = node.op->kept_input(i);
    if (kept && repeating(node.inputs[i])) *kept = again(node.inputs[i]);
  }
  static thread_local Gradient unwanted;
  std::vector<Gradient*> d_in;
  for (int64_t index : node.inputs) {
    Gradient* gradient = index < 0 ? &unwanted : &gradient_at(index);
    gradient->shared_ = std::find(d_in.begin(), d_in.end(), gradient) != d_in.end();
    gradient->output_ = &gradient_at(node.first_output);
    d_in.push_back(gradient);
  }
  node.op->backward(d_out, d_in);
  if (!check_finite_) return;
  for (Gradient* gradient : d_in) gradient->settle();
  for (Gradient* gradient : d_in) {
    if (!gradient->wanted_ || gradient->empty()) continue;
    const std::string& scope = scope_names[static_cast<size_t>(node.scope)];
    require_finite(gradient->slot(), *node.op, scope, "input gradient");
  }
}

Tensor Tape::gradient(const Var& leaf) const {
  check(place_of(leaf.index) >= 0, "[tape] expected a leaf of this tape");
  const Gradient& gradient = gradients_[static_cast<size_t>(place_of(leaf.index))];
  return converted(gradient.tensor_, gradient.dtype_);
}

Tensor Tape::take_gradient(const Var& leaf) {
  check(place_of(leaf.index) >= 0, "[tape] expected a leaf of this tape");
  return gradient_at(leaf.index).taken();
}

NoGrad::NoGrad() : hidden_(current_tape) { current_tape = nullptr; }
NoGrad::~NoGrad() { current_tape = hidden_; }

Scope::Scope(const std::string& name) : outer_(current_scope) {
  for (size_t i = 0; i < scope_names.size(); ++i) {
    if (scope_names[i] == name) {
      current_scope = static_cast<int64_t>(i);
      return;
    }
  }
  current_scope = static_cast<int64_t>(scope_names.size());
  scope_names.push_back(name);
}
Scope::~Scope() { current_scope = outer_; }

Var use(Parameter& parameter) {
  if (Tape* tape = Tape::current()) return tape->parameter(parameter);
  return parameter.factor();
}

Var use_master(Parameter& parameter) {
  Var var = use(parameter);
  var.value = parameter.value;
  return var;
}

Var use_in(DType dtype, Parameter& parameter) {
  return parameter.value.dtype() == dtype ? use_master(parameter) : use(parameter);
}

}  // namespace regla
