#include "scoring/perplexity.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "text/batches.h"

namespace regla {
namespace {

/// Inputs [begin, begin + length) of a text, of which the last `scored` predictions count.
struct Window {
  int64_t begin, length, scored;
};

/// The windows that score every one of `count` tokens once.
std::vector<Window> windows_of(int64_t count, const EvaluationOptions& options) {
  const bool carried = options.context == Context::Carried;
  const int64_t T = options.length;
  const int64_t stride = carried ? T : std::max<int64_t>(1, T / 2);
  std::vector<Window> windows;
  int64_t scored = 0;
  for (int64_t begin = 0; scored < count; begin += stride) {
    const int64_t end = std::min(count, begin + T);
    windows.push_back({begin, end - begin, end - scored});
    scored = end;
  }
  if (options.max_batches > 0) {
    const auto most = static_cast<size_t>(options.max_batches * options.batch);
    windows.resize(std::min(windows.size(), most));
  }
  return windows;
}

/// Scores windows of equal length as the rows of a batch.
class Scorer {
 public:
  Scorer(Decoder& decoder, std::span<const int32_t> ids, int32_t end_of_text, bool resets)
      : decoder_(decoder), ids_(ids), end_of_text_(end_of_text), resets_(resets) {}

  /// The sum of -ln p over what the windows score; `state`, when given, is carried.
  double score(std::span<const Window> windows, DecoderState* state) const {
    std::vector<int32_t> inputs;
    for (const Window& window : windows) {
      for (int64_t t = window.begin; t < window.begin + window.length; ++t) {
        inputs.push_back(t == 0 ? end_of_text_ : ids_[static_cast<size_t>(t - 1)]);
      }
    }
    const Shape shape = {static_cast<int64_t>(windows.size()), windows[0].length};
    Segment segment;
    if (resets_) {
      segment.reset = Tensor::of(shape, document_resets(inputs, end_of_text_), decoder_.device());
    }
    const Tensor hidden = decoder_.hidden(decoder_.ids(shape, inputs), segment, state).value;
    return nats(windows, hidden.reshape({shape.numel(), hidden.dim(-1)}));
  }

 private:
  /// Only the rows that count meet the output projection. hidden [windows * length, D].
  double nats(std::span<const Window> windows, const Tensor& hidden) const {
    std::vector<int32_t> targets;
    for (const Window& window : windows) {
      const auto end = ids_.begin() + window.begin + window.length;
      targets.insert(targets.end(), end - window.scored, end);
    }
    const auto count = static_cast<int64_t>(targets.size());
    Tensor rows = Tensor::empty({count, hidden.dim(1)}, hidden.dtype(), hidden.device());
    int64_t from = 0, to = 0;
    for (const Window& window : windows) {
      from += window.length;
      rows.slice(to, to + window.scored).copy_from(hidden.slice(from - window.scored, from));
      to += window.scored;
    }
    double sum = 0;
    for (const double loss : decoder_.losses(rows, decoder_.ids({count}, targets)).values()) {
      sum += loss;
    }
    return sum;
  }

  Decoder& decoder_;
  std::span<const int32_t> ids_;
  int32_t end_of_text_;
  bool resets_;
};

void check_options(const Decoder& decoder, const TokenStream& text,
                   const EvaluationOptions& options) {
  check(options.length > 0 && options.batch > 0,
        "[eval] expected a length and a batch of at least 1, got ", options.length, " and ",
        options.batch);
  check(!text.ids().empty(), "[eval] expected a text of at least one token");
  if (options.context != Context::Carried) return;
  for (const MixerConfig& mixer : decoder.config().mixer) {
    check(mixer.type != MixerType::Softmax || mixer.window > 0,
          "[eval] --context carried needs mixer.window above 0 for softmax attention, whose cache "
          "grows with the text otherwise");
  }
}

}  // namespace

double Evaluation::loss() const { return nats / static_cast<double>(tokens); }
double Evaluation::perplexity() const { return std::exp(loss()); }
double Evaluation::word_perplexity() const { return std::exp(nats / words); }
double Evaluation::bits_per_byte() const { return nats / std::numbers::ln2 / bytes; }

Evaluation evaluate(Decoder& decoder, const TokenStream& text, int32_t end_of_text,
                    const EvaluationOptions& options,
                    const std::function<bool(int64_t, int64_t)>& proceed) {
  check_options(decoder, text, options);
  const NoGrad guard;
  const auto count = static_cast<int64_t>(text.ids().size());
  const std::vector<Window> windows = windows_of(count, options);
  const Scorer scorer(decoder, text.ids(), end_of_text, options.reset_at_documents);
  const bool carried = options.context == Context::Carried;
  DecoderState state;
  if (carried) state = decoder.initial_state(1);
  Evaluation result;
  for (size_t i = 0; i < windows.size() && result.complete;) {
    size_t end = i + 1;
    const size_t most = carried ? 1 : static_cast<size_t>(options.batch);
    while (end < windows.size() && end - i < most && windows[end].length == windows[i].length)
      ++end;
    const std::span<const Window> rows(windows.data() + i, end - i);
    result.nats += scorer.score(rows, carried ? &state : nullptr);
    for (const Window& window : rows) result.tokens += window.scored;
    i = end;
    if (!std::isfinite(result.nats)) break;  // and stays so, whatever follows
    result.complete = !proceed || proceed(result.tokens, count);
  }
  const double share = static_cast<double>(result.tokens) / static_cast<double>(count);
  result.bytes = share * static_cast<double>(text.counts().bytes);
  result.words = share * static_cast<double>(text.counts().words + text.counts().line_ends);
  return result;
}

}  // namespace regla
