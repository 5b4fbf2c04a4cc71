#include "scoring/choices.h"

#include <algorithm>
#include <iterator>

namespace regla {
namespace {

/// A text of a group, how many of its tokens are computed already, and in which row: of the batch
/// that is, later of the states that are kept.
struct Member {
  size_t group, text;
  int64_t begin = 0, row = -1;
};

/// A prediction: which row of hidden values it is made from, what is right, and whose it is.
struct Prediction {
  int64_t row;
  int32_t target;
  std::vector<Member> members;
};

/// A group and how many tokens of its texts are the same.
struct Shared {
  size_t group;
  int64_t length;
};

int64_t size_of(const ScoredText& text) { return static_cast<int64_t>(text.ids.size()); }

/// The inputs that all texts of a group begin with. The last token of a text is no input.
int64_t shared_length(const std::vector<ScoredText>& group) {
  int64_t length = size_of(group[0]) - 1;
  for (const ScoredText& text : group) {
    length = std::min(length, size_of(text) - 1);
    const auto end = text.ids.begin() + length;
    length = std::mismatch(text.ids.begin(), end, group[0].ids.begin()).first - text.ids.begin();
  }
  return length;
}

class ChoiceScorer {
 public:
  ChoiceScorer(Decoder& decoder, std::span<const std::vector<ScoredText>> groups,
               const ChoiceOptions& options, ChoiceCounts& counts,
               const std::function<void(int64_t, int64_t)>& progress)
      : decoder_(decoder),
        groups_(groups),
        options_(options),
        counts_(counts),
        progress_(progress) {
    for (const auto& group : groups) {
      auto& scores = scores_.emplace_back(group.size());
      for (TextScore& score : scores) score.is_greedy = options.greedy;
      total_ += static_cast<int64_t>(group.size());
    }
  }

  std::vector<std::vector<TextScore>> score() {
    std::vector<Shared> shared;
    std::vector<Member> apart;
    for (size_t g = 0; g < groups_.size(); ++g) {
      const int64_t length =
          groups_[g].size() > 1 && options_.shares ? shared_length(groups_[g]) : 0;
      if (length > 0) {
        shared.push_back({g, length});
        ++counts_.shared;
        continue;
      }
      for (size_t i = 0; i < groups_[g].size(); ++i) apart.push_back({g, i});
      if (groups_[g].size() > 1) ++counts_.apart;
    }
    // The longest first: what does not fit into the memory is known soon.
    std::stable_sort(shared.begin(), shared.end(),
                     [](const Shared& a, const Shared& b) { return a.length > b.length; });
    for (size_t begin = 0; begin < shared.size();) {
      const size_t end = end_of_batch(shared, begin);
      score_shared(std::span(shared).subspan(begin, end - begin));
      begin = end;
    }
    score_waiting();
    score_members(std::move(apart));
    add_kept();
    return std::move(scores_);
  }

 private:
  const ScoredText& text(const Member& member) const { return groups_[member.group][member.text]; }
  /// Inputs of a text that are not computed yet; the last token is only predicted.
  int64_t inputs(const Member& member) const { return size_of(text(member)) - 1 - member.begin; }

  /// Groups that share nearly as many tokens: what one has more of them is computed for each of its
  /// texts, and a batch that is large enough takes no more of that.
  size_t end_of_batch(std::span<const Shared> shared, size_t begin) const {
    const int64_t longest = shared[begin].length;
    size_t end = begin + 1;
    for (; end < shared.size(); ++end) {
      const int64_t length = shared[end].length,
                    tokens = static_cast<int64_t>(end - begin) * length;
      const bool is_shorter =
          tokens >= kEnoughRows ? length < longest : longest - length > longest / 16;
      if (is_shorter || tokens + length > options_.batch_tokens) break;
    }
    return end;
  }

  /// The states behind what the groups of a batch begin with; their texts wait for more of them.
  void score_shared(std::span<const Shared> batch) {
    const int64_t length = batch.back().length, B = static_cast<int64_t>(batch.size());
    std::vector<int32_t> ids;
    std::vector<Member> members;
    for (int64_t row = 0; row < B; ++row) {
      const size_t g = batch[static_cast<size_t>(row)].group;
      const auto& beginning = groups_[g][0].ids;
      ids.insert(ids.end(), beginning.begin(), beginning.begin() + length);
      for (size_t i = 0; i < groups_[g].size(); ++i) members.push_back({g, i, length, row});
    }
    counts_.tokens += B * length;
    DecoderState state = decoder_.initial_state(B);
    const Tensor hidden = decoder_.hidden(decoder_.ids({B, length}, ids), {}, &state).value;
    add(hidden, predictions_of(members, length));
    const int64_t bytes = state.bytes();
    if (waiting_bytes_ + bytes > kStateBytes) score_waiting();
    waiting_bytes_ += bytes;
    const auto first = static_cast<int64_t>(states_.size());
    for (int64_t row = 0; row < B; ++row) states_.push_back(state.rows(row, row + 1));
    for (Member& member : members) {
      member.row += first;
      if (inputs(member) > 0) {
        waiting_.push_back(member);
      } else {
        ++done_;
      }
    }
  }

  void score_waiting() {
    score_members(std::move(waiting_));
    waiting_.clear();
    states_.clear();
    waiting_bytes_ = 0;
  }

  /// What hidden values of rows of `length` shared tokens predict of the members, who stand row by
  /// row. A token that is the same in several texts is predicted once.
  std::vector<Prediction> predictions_of(std::span<const Member> members, int64_t length) const {
    std::vector<Prediction> predictions;
    for (size_t first = 0; first < members.size();) {
      size_t last = first;
      while (last < members.size() && members[last].row == members[first].row) ++last;
      for (int64_t t = 1; t <= length; ++t) {
        const auto before = static_cast<std::ptrdiff_t>(predictions.size());
        for (const Member& member : members.subspan(first, last - first)) {
          const ScoredText& one = text(member);
          if (t < size_of(one) - one.scored) continue;
          const int32_t target = one.ids[static_cast<size_t>(t)];
          const auto same =
              std::find_if(predictions.begin() + before, predictions.end(),
                           [&](const Prediction& other) { return other.target == target; });
          if (same == predictions.end()) {
            predictions.push_back({member.row * length + t - 1, target, {member}});
          } else {
            same->members.push_back(member);
          }
        }
      }
      first = last;
    }
    return predictions;
  }

  /// Goes on with texts, the longest first.
  void score_members(std::vector<Member> members) {
    std::stable_sort(members.begin(), members.end(),
                     [&](const Member& a, const Member& b) { return inputs(a) > inputs(b); });
    const std::vector<size_t> ends = ends_of_batches(members);
    for (size_t first = 0; first < members.size(); first = ends[first]) {
      score_batch(std::span(members).subspan(first, ends[first] - first));
      report();
    }
  }

  /// Where the best batch that begins with each member ends: those that follow cost least together,
  /// padding to the length of their first, and the batch itself, which reads all weights.
  std::vector<size_t> ends_of_batches(std::span<const Member> members) const {
    std::vector<size_t> ends(members.size());
    std::vector<int64_t> costs(members.size() + 1, 0), state_bytes;
    for (const Member& member : members) state_bytes.push_back(bytes_of_state(member));
    for (size_t first = members.size(); first-- > 0;) {
      const int64_t longest = inputs(members[first]);
      int64_t bytes = 0;
      for (size_t end = first + 1; end <= members.size(); ++end) {
        const auto count = static_cast<int64_t>(end - first);
        bytes = std::max(bytes, state_bytes[end - 1]);
        const bool is_full = count * longest > options_.batch_tokens || count * bytes > kStateBytes;
        if (count > 1 && is_full) break;
        const int64_t cost = count * longest + kRowsOfBatch + costs[end];
        if (count > 1 && cost >= costs[first]) continue;
        costs[first] = cost;
        ends[first] = end;
      }
    }
    return ends;
  }

  int64_t bytes_of_state(const Member& member) const {
    return member.row < 0 ? 0 : states_[static_cast<size_t>(member.row)].bytes();
  }

  void score_batch(std::span<const Member> members) {
    const auto B = static_cast<int64_t>(members.size());
    const int64_t longest = inputs(members[0]);
    // Nothing follows a text in its row but padding, which nothing before sees.
    std::vector<int32_t> ids(static_cast<size_t>(B * longest), 0);
    std::vector<DecoderState> states;
    std::vector<Prediction> predictions;
    for (int64_t b = 0; b < B; ++b) {
      const Member& member = members[static_cast<size_t>(b)];
      const ScoredText& one = text(member);
      const int64_t count = inputs(member);
      const auto from = one.ids.begin() + member.begin;
      std::copy(from, from + count, ids.begin() + b * longest);
      if (member.row >= 0) states.push_back(states_[static_cast<size_t>(member.row)]);
      counts_.tokens += count;
      for (int64_t t = std::max<int64_t>(0, count - one.scored); t < count; ++t) {
        predictions.push_back({b * longest + t, *(from + t + 1), {member}});
      }
    }
    DecoderState state;
    if (!states.empty()) state = DecoderState::joined(std::move(states), longest);
    DecoderState* from = state.empty() ? nullptr : &state;
    add(decoder_.hidden(decoder_.ids({B, longest}, ids), {}, from).value, std::move(predictions));
    done_ += B;
  }

  /// Keeps the hidden values [B, T, D] that predictions are made from. The output projection, whose
  /// weights are many, waits until there are enough.
  void add(const Tensor& hidden, std::vector<Prediction> predictions) {
    const int64_t D = hidden.dim(2), count = static_cast<int64_t>(predictions.size());
    if (count == 0) return;
    const Tensor all = hidden.reshape({hidden.dim(0) * hidden.dim(1), D});
    const Tensor rows = Tensor::empty({count, D}, hidden.dtype(), hidden.device());
    const auto row = [&](int64_t i) { return predictions[static_cast<size_t>(i)].row; };
    for (int64_t i = 0; i < count;) {
      int64_t run = 1;  // of rows that stand one after the other
      while (i + run < count && row(i + run) == row(i) + run) ++run;
      rows.slice(i, i + run).copy_from(all.slice(row(i), row(i) + run));
      i += run;
    }
    kept_.push_back(rows);
    std::move(predictions.begin(), predictions.end(), std::back_inserter(predictions_));
    if (std::ssize(predictions_) >= kEnoughRows) add_kept();
  }

  /// Adds what was kept to the scores of their texts.
  void add_kept() {
    if (kept_.empty()) return;
    const auto count = static_cast<int64_t>(predictions_.size());
    const Tensor rows =
        Tensor::empty({count, kept_[0].dim(1)}, kept_[0].dtype(), kept_[0].device());
    std::vector<int32_t> targets;
    for (const Prediction& prediction : predictions_) targets.push_back(prediction.target);
    int64_t begin = 0;
    for (const Tensor& part : kept_) {
      rows.slice(begin, begin + part.dim(0)).copy_from(part);
      begin += part.dim(0);
    }
    const std::vector<double> losses =
        decoder_.losses(rows, decoder_.ids({count}, targets)).values();
    for (size_t i = 0; i < losses.size(); ++i) {
      for (const Member& member : predictions_[i].members) {
        score_of(member).log_likelihood -= losses[i];
      }
    }
    // Scores over the vocabulary exist only where the likeliest token is asked for.
    for (int64_t first = 0; options_.greedy && first < count; first += kMostScores) {
      const int64_t end = std::min(count, first + kMostScores);
      compare_with_likeliest(
          rows.slice(first, end),
          std::span(predictions_)
              .subspan(static_cast<size_t>(first), static_cast<size_t>(end - first)));
    }
    kept_.clear();
    predictions_.clear();
  }

  void compare_with_likeliest(const Tensor& rows, std::span<const Prediction> predictions) {
    const std::vector<double> scores = decoder_.logits(rows).value.values();
    const auto vocab = static_cast<std::ptrdiff_t>(scores.size() / predictions.size());
    auto row = scores.begin();
    for (const Prediction& prediction : predictions) {
      const auto likeliest = std::max_element(row, row + vocab) - row;
      row += vocab;
      if (likeliest == prediction.target) continue;
      for (const Member& member : prediction.members) score_of(member).is_greedy = false;
    }
  }

  TextScore& score_of(const Member& member) { return scores_[member.group][member.text]; }

  void report() const {
    if (progress_) progress_(done_, total_);
  }

  static constexpr int64_t kRowsOfBatch = 96;  // rows that take as long as reading all weights
  static constexpr int64_t kStateBytes = int64_t{96} << 20;  // that wait, and that are joined
  static constexpr int64_t kEnoughRows = 1024;               // for products at full speed
  static constexpr int64_t kMostScores = 64;  // rows of scores over the vocabulary at once

  Decoder& decoder_;
  std::span<const std::vector<ScoredText>> groups_;
  const ChoiceOptions& options_;
  ChoiceCounts& counts_;
  const std::function<void(int64_t, int64_t)>& progress_;
  std::vector<std::vector<TextScore>> scores_;
  std::vector<DecoderState> states_;     // of a sequence each, behind what a group begins with
  std::vector<Member> waiting_;          // that go on from them
  int64_t waiting_bytes_ = 0;            // of those states
  std::vector<Tensor> kept_;             // hidden values [., D]
  std::vector<Prediction> predictions_;  // from their rows
  int64_t done_ = 0, total_ = 0;
};

void check_groups(std::span<const std::vector<ScoredText>> groups) {
  for (const auto& group : groups) {
    for (const ScoredText& text : group) {
      check(text.scored > 0 && text.scored < size_of(text),
            "[eval] expected tokens to score and one before them, got ", text.scored, " of ",
            size_of(text));
    }
  }
}

}  // namespace

std::vector<std::vector<TextScore>> score_choices(
    Decoder& decoder, std::span<const std::vector<ScoredText>> groups, const ChoiceOptions& options,
    ChoiceCounts* counts, const std::function<void(int64_t, int64_t)>& progress) {
  check_groups(groups);
  decoder.config().require_step_form();
  const NoGrad guard;
  ChoiceCounts unused;
  return ChoiceScorer(decoder, groups, options, counts ? *counts : unused, progress).score();
}

}  // namespace regla
