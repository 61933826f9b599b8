// CUDA kernels as C++ on one CPU thread: blocks one after the other, a block's threads as fibers.
// A fiber runs until it has to wait (__syncthreads, a shuffle), then the next one does, forwards and
// backwards in turn: whoever reads what another thread has not surely written yet is found out. A
// barrier that not all threads of a block or warp reach ends the launch with an error.
#pragma once
#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <stdexcept>
#include <vector>

using namespace std;  // CUDA has its mathematics in the global namespace.

#define __global__
#define __device__
#define __shared__ static
#define __launch_bounds__(...)

struct Dim {
    unsigned x, y, z;
};
static Dim threadIdx, blockIdx, blockDim, gridDim;

struct Fiber {
    ucontext_t context;
    jmp_buf place;
    std::unique_ptr<char[]> stack;
    Dim index;
    bool started = false, done = false;
    int waits = 0;  // 0: for nothing, 1: at the block's barrier, 2: at its warp's
};
static std::vector<Fiber> fibers;
static jmp_buf scheduler;
static int running;
static std::function<void()> block_body;
static uint64_t exchanged[1024];
static const size_t STACK = 64 << 10;

static void begin_fiber() {
    block_body();
    fibers[running].done = true;
    _longjmp(scheduler, 1);
}

__attribute__((noinline)) static void wait_for(int what) {
    fibers[running].waits = what;
    if (_setjmp(fibers[running].place) == 0) _longjmp(scheduler, 1);
}

__attribute__((noinline)) static void resume(int number) {
    Fiber& fiber = fibers[number];
    running = number;
    threadIdx = fiber.index;
    fiber.waits = 0;
    if (_setjmp(scheduler) != 0) return;
    if (fiber.started) _longjmp(fiber.place, 1);
    fiber.started = true;
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.get();
    fiber.context.uc_stack.ss_size = STACK;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, begin_fiber, 0);
    setcontext(&fiber.context);
}

[[noreturn]] static void fail(const char* why) {
    char text[200];
    snprintf(text, sizeof text, "block (%u, %u): %s", blockIdx.x, blockIdx.y, why);
    throw std::runtime_error(text);
}

// Whether all of [first, last) wait for `what`; some of them only is an error of the kernel's.
static bool all_wait(int first, int last, int what) {
    int waiting = 0;
    for (int n = first; n < last; ++n) waiting += !fibers[n].done && fibers[n].waits == what;
    if (waiting == 0) return false;
    for (int n = first; n < last; ++n) {
        if (fibers[n].done) fail("a thread ended while others wait for it");
    }
    return waiting == last - first;
}

static void run_block() {
    const int count = static_cast<int>(blockDim.x * blockDim.y);
    if (static_cast<int>(fibers.size()) < count) fibers.resize(count);
    for (int n = 0; n < count; ++n) {
        Fiber& fiber = fibers[n];
        if (!fiber.stack) fiber.stack.reset(new char[STACK]);
        fiber.index = {n % blockDim.x, n / blockDim.x, 0};
        fiber.started = fiber.done = false;
        fiber.waits = 0;
    }
    for (bool forwards = true;; forwards = !forwards) {
        bool moved = false;
        for (int n = 0; n < count; ++n) {
            const int number = forwards ? n : count - 1 - n;
            if (!fibers[number].done && fibers[number].waits == 0) {
                resume(number);
                moved = true;
            }
        }
        for (int first = 0; first < count; first += 32) {
            const int last = min(first + 32, count);
            if (!all_wait(first, last, 2)) continue;
            for (int n = first; n < last; ++n) fibers[n].waits = 0;
            moved = true;
        }
        if (!moved && all_wait(0, count, 1)) {
            for (int n = 0; n < count; ++n) fibers[n].waits = 0;
            moved = true;
        }
        if (moved) continue;
        for (int n = 0; n < count; ++n) {
            if (!fibers[n].done) fail("its threads wait at different barriers");
        }
        return;
    }
}

static inline void __syncthreads() { wait_for(1); }

template <typename T> static T __shfl_xor_sync(unsigned, T value, int lane) {
    const int self = running;
    memcpy(&exchanged[self], &value, sizeof value);
    wait_for(2);
    T other;
    memcpy(&other, &exchanged[self ^ lane], sizeof other);
    wait_for(2);
    return other;
}

// Runs a kernel; what went wrong, or nothing, is left in `told`.
template <typename Call> static void launch(const int64_t* shape, Call call, char* told) try {
    told[0] = 0;
    gridDim = {static_cast<unsigned>(shape[0]), static_cast<unsigned>(shape[1]), 1};
    blockDim = {static_cast<unsigned>(shape[2]), static_cast<unsigned>(shape[3]), 1};
    block_body = call;
    for (unsigned y = 0; y < gridDim.y; ++y) {
        for (unsigned x = 0; x < gridDim.x; ++x) {
            blockIdx = {x, y, 0};
            run_block();
        }
    }
} catch (const std::runtime_error& error) {
    snprintf(told, 200, "%s", error.what());
}
