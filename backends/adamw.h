#pragma once

#include "backends/kernels.h"

namespace regla {

/// The numbers of AdamWArgs as they reach a device, where alone `rates` and `factor` may be read.
struct AdamWSettings {
  double beta1, beta2, epsilon;
  const double *rates, *factor;

  explicit AdamWSettings(const AdamWArgs& args)
      : beta1(args.beta1),
        beta2(args.beta2),
        epsilon(args.epsilon),
        rates(args.rates.data<double>()),
        factor(args.factor.data<double>()) {}
};

/// The same in the type that the update is computed in.
template <class T>
struct AdamWNumbers {
  T scale, beta1, beta2, epsilon, rate, unbias1, unbias2;

  explicit constexpr AdamWNumbers(const AdamWSettings& from)
      : scale(static_cast<T>(from.factor[0])),
        beta1(static_cast<T>(from.beta1)),
        beta2(static_cast<T>(from.beta2)),
        epsilon(static_cast<T>(from.epsilon)),
        rate(static_cast<T>(from.rates[0])),
        unbias1(static_cast<T>(1 / from.rates[1])),
        unbias2(static_cast<T>(1 / from.rates[2])) {}
};

}  // namespace regla
