#pragma once

namespace regla {

/// Which maximum m the safe exponential exp(z - m) subtracts (ReGLA Eq. 11-12):
///   Running   m_t = max(m_{t-1}, max_i z_t), log rho_t = m_{t-1} - m_t         (keys)
///   Sequence  one maximum over the whole segment, as printed in the paper      (keys)
///   Token     max_i z_t                                                       (queries)
enum class Maximum { Running, Sequence, Token };

}  // namespace regla
