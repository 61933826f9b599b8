// Stands in for CUDA's header: half precision in the compiler's own type.
#pragma once
using half = _Float16;
