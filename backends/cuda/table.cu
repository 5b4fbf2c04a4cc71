#include "backends/cuda/kernels.h"

namespace regla::cuda {
namespace {

constexpr KernelTable make_table() {
  KernelTable table;  // what is not named here is an Error when it is called
  table.backend = "cuda";
  table.side_by_side = 8;  // 16 bytes
  table.convert = convert;
  table.copy_rows = copy_rows;
  table.put_row = put_row;
  table.accumulate = accumulate;
  table.add = add;
  table.scale_by = scale_by;
  table.sum = sum;
  table.matmul = matmul;
  table.linear_backward = linear_backward;
  table.linear_step = linear_step;
  table.column_sums = column_sums;
  table.norm = norm;
  table.norm_backward = norm_backward;
  table.gelu = gelu;
  table.gelu_backward = gelu_backward;
  table.softmax = softmax;
  table.softmax_backward = softmax_backward;
  table.embedding = embedding;
  table.embedding_backward = embedding_backward;
  table.positions = positions;
  table.first_keys = first_keys;
  table.rope = rope;
  table.dropout = dropout;
  table.dropout_norm = dropout_norm;
  table.dropout_norm_backward = dropout_norm_backward;
  table.cross_entropy = cross_entropy;
  table.sigmoid = sigmoid;
  table.sigmoid_backward = sigmoid_backward;
  table.log_sigmoid = log_sigmoid;
  table.log_sigmoid_backward = log_sigmoid_backward;
  table.refined_gate = refined_gate;
  table.refined_gate_backward = refined_gate_backward;
  table.safe_exp = safe_exp;
  table.safe_exp_backward = safe_exp_backward;
  table.head_linear = head_linear;
  table.head_linear_backward = head_linear_backward;
  table.relu = relu;
  table.relu_backward = relu_backward;
  table.elu_plus_one = elu_plus_one;
  table.elu_plus_one_backward = elu_plus_one_backward;
  table.favor_exponent = favor_exponent;
  table.favor_exponent_backward = favor_exponent_backward;
  table.hedgehog = hedgehog;
  table.hedgehog_backward = hedgehog_backward;
  table.cos_sin = cos_sin;
  table.cos_sin_backward = cos_sin_backward;
  table.dpfp = dpfp;
  table.dpfp_backward = dpfp_backward;
  table.write_gate = write_gate;
  table.write_gate_backward = write_gate_backward;
  table.swish_gate = swish_gate;
  table.swish_gate_backward = swish_gate_backward;
  table.append_one = append_one;
  table.append_one_backward = append_one_backward;
  table.sum_norm = sum_norm;
  table.sum_norm_backward = sum_norm_backward;
  table.linear_attention = linear_attention;
  table.linear_attention_backward = linear_attention_backward;
  table.linear_attention_step = linear_attention_step;
  table.regla_step = regla_step;
  table.delta_rule = delta_rule;
  table.delta_rule_backward = delta_rule_backward;
  table.delta_rule_step = delta_rule_step;
  table.softmax_attention = softmax_attention;
  table.softmax_attention_backward = softmax_attention_backward;
  table.softmax_attention_step = softmax_attention_step;
  table.clip_factor = clip_factor;
  table.adamw = adamw;
  table.commit = commit;
  table.restart = restart;
  table.penalise = penalise;
  table.sample = sample;
  table.sums_of_squares = sums_of_squares;
  table.is_finite = is_finite;
  table.distillation = distillation;
  table.relative_error = relative_error;
  table.relative_error_backward = relative_error_backward;
  return table;
}

}  // namespace

const KernelTable kTable = make_table();

}  // namespace regla::cuda
