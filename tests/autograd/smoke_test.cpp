#include "autograd/ops.h"
#include "tests/catch.h"
TEST_CASE("x") { REQUIRE(true); }
