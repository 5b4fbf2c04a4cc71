#include <algorithm>
#include <limits>

#include "backends/cpu/elements.h"
#include "backends/cpu/kernels.h"
#include "backends/cpu/vector_math.h"

// phi(z)_t[i] = scale * exp(z_t[i] - m_t) (Eq. 11-12), with m_t as SafeExpArgs says. argmax_t tells
// the backward pass what attains m_t: t' * K + i for an element of z, kFromState for m0. The
// maximum of numbers with a NaN among them is NaN, and stays so until a reset.
namespace regla::cpu {
namespace {

constexpr int32_t kFromState = -1;
/// Rows of a head are short and far apart, and processors do not guess them: they are asked for so
/// many tokens before.
constexpr int64_t kTokensAhead = 16;

/// One head of one sequence: rows of K features, `pitch` apart.
template <class T>
struct Head {
  int64_t steps, K, pitch, argmax_pitch;
  Input<T> z;
  int64_t z_first;       // of the head in z
  T* room;               // [K], for a row of z that is widened
  const int32_t* reset;  // [T] or null
  const T* m0;           // one value, or null
  int32_t* argmax;
  T scale;

  const T* row(int64_t t) const { return z.read(z_first + t * pitch, K, room); }
  int32_t& arg(int64_t t) const { return argmax[t * argmax_pitch]; }
  bool resets(int64_t t) const { return reset != nullptr && reset[t] != 0; }
};

/// Raises (m, arg) by row t; ties stay with the earlier position and the lower feature. NaN is
/// attained nowhere: arg stays.
template <class T>
void raise_maximum(const Head<T>& head, int64_t t, T& m, int32_t& arg) {
  head.z.fetch(head.z_first + (t + kTokensAhead) * head.pitch, head.K);
  const T* z = head.row(t);
  constexpr T kInfinity = std::numeric_limits<T>::infinity();
  T largest = m;
#pragma omp simd reduction(max : largest)
  for (int64_t i = 0; i < head.K; ++i) {
    const T x = z[i] == z[i] ? z[i] : kInfinity;  // a comparison with NaN would pass over it
    largest = x > largest ? x : largest;
  }
  if (largest == kInfinity && std::any_of(z, z + head.K, [](T x) { return x != x; })) {
    m = std::numeric_limits<T>::quiet_NaN();
  }
  if (!(largest > m)) return;
  m = largest;
  arg = static_cast<int32_t>(t * head.K + (std::find(z, z + head.K, largest) - z));
}

template <class T>
void write_features(const Head<T>& head, int64_t t, T m, const Output<T>& features) {
  const T *z = head.row(t), scale = head.scale;
  features.write(head.z_first + t * head.pitch, head.K,
                 [=](int64_t i) { return scale * math::exp_of_low(z[i] - m); });
}

/// log rho = m_before - m, but 0 while nothing was seen: -infinity must not enter a sum.
template <class T>
T log_ratio(T before, T now) {
  return before == -std::numeric_limits<T>::infinity() ? T(0) : before - now;
}

template <class T>
void running_maximum(const Head<T>& head, const Output<T>& features, T* log_rho, T* m_last) {
  T m = head.m0 ? *head.m0 : -std::numeric_limits<T>::infinity();
  int32_t arg = kFromState;
  for (int64_t t = 0; t < head.steps; ++t) {
    if (head.resets(t)) m = -std::numeric_limits<T>::infinity();
    const T before = m;
    raise_maximum(head, t, m, arg);
    head.arg(t) = arg;
    log_rho[t * head.argmax_pitch] = log_ratio(before, m);
    write_features(head, t, m, features);
  }
  *m_last = m;
}

/// A reset begins a sequence of its own.
template <class T>
void sequence_maximum(const Head<T>& head, const Output<T>& features, T* log_rho, T* m_last) {
  T m = head.m0 ? *head.m0 : -std::numeric_limits<T>::infinity();
  int32_t arg = kFromState;
  for (int64_t begin = 0, end = 0; begin < head.steps; begin = end) {
    if (head.resets(begin)) m = -std::numeric_limits<T>::infinity();
    const T before = m;
    for (end = begin; end < head.steps && (end == begin || !head.resets(end)); ++end) {
      raise_maximum(head, end, m, arg);
    }
    for (int64_t t = begin; t < end; ++t) {
      head.arg(t) = arg;
      log_rho[t * head.argmax_pitch] = t == begin ? log_ratio(before, m) : T(0);
      write_features(head, t, m, features);
    }
  }
  *m_last = m;
}

template <class T>
void token_maximum(const Head<T>& head, const Output<T>& features) {
  for (int64_t t = 0; t < head.steps; ++t) {
    T m = -std::numeric_limits<T>::infinity();
    head.arg(t) = kFromState;  // stays if nothing is larger, as with NaN
    raise_maximum(head, t, m, head.arg(t));
    write_features(head, t, m, features);
  }
}

/// `like` is any tensor [B, T, H, K].
template <class T>
Head<T> head_of(const SafeExpArgs& args, const Tensor& like, int32_t* argmax, T* room, int64_t b,
                int64_t h) {
  const int64_t steps = like.dim(1), H = like.dim(2), K = like.dim(3);
  return {.steps = steps,
          .K = K,
          .pitch = H * K,
          .argmax_pitch = H,
          .z = Input<T>(args.z),
          .z_first = (b * steps * H + h) * K,
          .room = room,
          .reset = args.reset ? args.reset.data<int32_t>() + b * steps : nullptr,
          .m0 = args.m0 ? args.m0.data<T>() + b * H + h : nullptr,
          .argmax = argmax + b * steps * H + h,
          .scale = static_cast<T>(args.scale)};
}

/// Of z as it is.
void features_of(const SafeExpArgs& args, SafeExpResult& result) {
  for_sums_of(args.z, "safe_exp", [&](auto tag) {
    using T = decltype(tag);
    const int64_t B = args.z.dim(0), steps = args.z.dim(1), H = args.z.dim(2), K = args.z.dim(3);
    int32_t* argmax = result.argmax.data<int32_t>();
    const Output<T> features(result.features);
    T* log_rho = result.log_rho ? result.log_rho.data<T>() : nullptr;
    T* m = result.m ? result.m.data<T>() : nullptr;
    parallel_for(B * H, row_grain(steps * K), [&](int64_t begin, int64_t end) {
      std::vector<T> room(static_cast<size_t>(K));
      for (int64_t n = begin; n < end; ++n) {
        const int64_t b = n / H, h = n % H, first = b * steps * H + h;
        const Head<T> head = head_of<T>(args, args.z, argmax, room.data(), b, h);
        switch (args.maximum) {
          case Maximum::Running:
            running_maximum(head, features, log_rho + first, m + n);
            break;
          case Maximum::Sequence:
            sequence_maximum(head, features, log_rho + first, m + n);
            break;
          case Maximum::Token:
            token_maximum(head, features);
            break;
        }
      }
    });
  });
}

/// The gradients of one head. `at(arg)` is where the gradient of what attained a maximum goes.
template <class T>
struct HeadGradients {
  Input<T> features, d_features;  // d_features may be absent
  const T* d_log_rho;             // or null
  T d_m;                          // of the last maximum
  Output<T> d_z;                  // already written or added to by the exponential
  T* d_m0;                        // or null
  T *room, *d_room;               // [K], for rows that are widened

  void add(const Head<T>& head, int32_t arg, T amount) const {
    if (arg == kFromState) {
      if (d_m0) *d_m0 += amount;
    } else {
      d_z.add(head.z_first + arg / head.K * head.pitch + arg % head.K, amount);
    }
  }
};

/// d_z = d_features * features, and minus its sum to whatever attained m_t. What one element is
/// owed by neighbouring tokens is paid when another takes its place: by then its own d_z is
/// written, even if it comes after them (Maximum::Sequence).
template <class T>
void features_backward(const Head<T>& head, const HeadGradients<T>& g) {
  int32_t arg = kFromState;
  T owed = 0;
  for (int64_t t = 0; t < head.steps; ++t) {
    const int64_t first = head.z_first + t * head.pitch;
    g.features.fetch(first + kTokensAhead * head.pitch, head.K);
    if (g.d_features) g.d_features.fetch(first + kTokensAhead * head.pitch, head.K);
    const T* d = g.d_features ? g.d_features.read(first, head.K, g.d_room) : nullptr;
    const T* f = g.features.read(first, head.K, g.room);
    g.d_z.write(first, head.K, [=](int64_t i) { return d ? d[i] * f[i] : T(0); });
    if (head.arg(t) != arg) {
      g.add(head, arg, owed);
      arg = head.arg(t);
      owed = 0;
    }
    if (d) owed -= sum_of(head.K, [=](int64_t i) { return d[i] * f[i]; });
  }
  g.add(head, arg, owed);
}

/// log rho_t = m_{t-1} - m_t counts only where the maximum changed hands; elsewhere both terms meet
/// in the same element and cancel.
template <class T>
void rho_backward(const Head<T>& head, const HeadGradients<T>& g) {
  const bool seen_before = head.m0 && *head.m0 != -std::numeric_limits<T>::infinity();
  for (int64_t t = 0; t < head.steps && g.d_log_rho; ++t) {
    if (head.resets(t) || (t == 0 && !seen_before)) continue;
    const int32_t now = head.arg(t), before = t == 0 ? kFromState : head.arg(t - 1);
    if (now == before) continue;
    const T d = g.d_log_rho[t * head.argmax_pitch];
    g.add(head, before, d);
    g.add(head, now, -d);
  }
  if (head.steps > 0) g.add(head, head.arg(head.steps - 1), g.d_m);
}

/// The gradient of z as it was used.
void backward_of(const SafeExpArgs& args, const SafeExpResult& result, const Tensor& d_features,
                 const Tensor& d_log_rho, const Tensor& d_m, Sink d_z, Sink d_m0) {
  const Tensor& features = result.features;
  for_sums_of(features, "safe_exp", [&](auto tag) {
    using T = decltype(tag);
    const int64_t B = features.dim(0), steps = features.dim(1), H = features.dim(2);
    const int64_t K = features.dim(3);
    Tensor argmax = result.argmax;
    if (d_m0 && !d_m0.accumulate) d_m0.tensor.fill(0);
    parallel_for(B * H, 1, [&](int64_t begin, int64_t end) {
      std::vector<T> room(static_cast<size_t>(2 * K));
      for (int64_t n = begin; n < end; ++n) {
        const int64_t b = n / H, h = n % H, first = b * steps * H + h;
        const Head<T> head = head_of<T>(args, features, argmax.data<int32_t>(), nullptr, b, h);
        const HeadGradients<T> gradients = {
            .features = Input<T>(features),
            .d_features = Input<T>(d_features),
            .d_log_rho = d_log_rho ? d_log_rho.data<T>() + first : nullptr,
            .d_m = d_m ? d_m.data<T>()[n] : T(0),
            .d_z = Output<T>(d_z),
            .d_m0 = d_m0 ? d_m0.tensor.data<T>() + n : nullptr,
            .room = room.data(),
            .d_room = room.data() + K};
        features_backward(head, gradients);
        if (args.maximum != Maximum::Token) rho_backward(head, gradients);
      }
    });
  });
}

}  // namespace

void safe_exp(const SafeExpArgs& args, SafeExpResult& result) {
  if (!args.rotation.turns()) return features_of(args, result);
  SafeExpArgs turned = args;
  turned.z = Tensor::empty(args.z.shape(), sum_type(args.z.dtype()));
  rope({args.z, args.rotation, false}, Sink{turned.z});
  features_of(turned, result);
}

void safe_exp_backward(const SafeExpArgs& args, const SafeExpResult& result,
                       const Tensor& d_features, const Tensor& d_log_rho, const Tensor& d_m,
                       const RowsSink& rows, Sink d_m0) {
  const Sink d_z = {rows.matrix.tensor.reshape(result.features.shape()), rows.matrix.accumulate};
  if (!args.rotation.turns()) {
    return backward_of(args, result, d_features, d_log_rho, d_m, d_z, d_m0);
  }
  const Tensor d_turned = Tensor::empty(d_z.tensor.shape(), sum_type(d_z.tensor.dtype()));
  backward_of(args, result, d_features, d_log_rho, d_m, Sink{d_turned}, d_m0);
  rope({d_turned, args.rotation, true}, d_z);
}

}  // namespace regla::cpu
