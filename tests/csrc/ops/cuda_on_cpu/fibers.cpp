// The fibers behind cuda_runtime.h: made with ucontext, switched with setjmp and longjmp, which ask nothing of the system.
#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <numeric>
#include <random>
#include <vector>

#include "cuda_runtime.h"

namespace cuda_on_cpu {
namespace {

constexpr size_t STACK_BYTES = 64 * 1024;
constexpr int WARP = 32;

enum class State { runs, waits_for_block, waits_for_warp, ended };
enum class Schedule : int { forward = 0, backward = 1, shuffled = 2 };
enum Fault : cudaError_t { none = 0, left_at_barrier = 9001, divergent_barrier = 9002, bad_launch = 9003 };

struct Fiber {
  jmp_buf place;
  std::unique_ptr<char[]> stack = std::make_unique<char[]>(STACK_BYTES);
  State state = State::runs;
  uint32_t given = 0;
};

struct Block {
  std::vector<Fiber> fibers;
  jmp_buf scheduler;
  int running = 0;
  const std::function<void()>* thread = nullptr;
};

Block* current = nullptr;
Schedule schedule = Schedule::forward;
std::mt19937 random_order(1);

Fiber& running_fiber() { return current->fibers[static_cast<size_t>(current->running)]; }

void wait_in(State state) {
  Fiber& fiber = running_fiber();
  fiber.state = state;
  if (_setjmp(fiber.place) == 0) _longjmp(current->scheduler, 1);
}

// A fiber's life: one block after another.
void body() {
  while (true) {
    wait_in(State::ended);
    (*current->thread)();
  }
}

void go_on(int index) {
  current->running = index;
  threadIdx = dim3(static_cast<unsigned>(index), 0, 0);
  if (_setjmp(current->scheduler) == 0) _longjmp(running_fiber().place, 1);
}

// Run the fiber up to the beginning of its first block.
void create(int index) {
  current->running = index;
  static ucontext_t context, unused;
  getcontext(&context);
  context.uc_stack.ss_sp = running_fiber().stack.get();
  context.uc_stack.ss_size = STACK_BYTES;
  context.uc_link = nullptr;
  makecontext(&context, body, 0);
  if (_setjmp(current->scheduler) == 0) swapcontext(&unused, &context);
}

std::vector<size_t> order_of(size_t begin, size_t end) {
  std::vector<size_t> order(end - begin);
  std::iota(order.begin(), order.end(), begin);
  if (schedule == Schedule::backward) std::reverse(order.begin(), order.end());
  if (schedule == Schedule::shuffled) std::shuffle(order.begin(), order.end(), random_order);
  return order;
}

// Let the fibers of [begin, end) go on that all wait in `state`; false unless they all do.
bool release(size_t begin, size_t end, State state) {
  for (size_t i = begin; i < end; ++i) {
    if (current->fibers[i].state != state) return false;
  }
  for (size_t i = begin; i < end; ++i) current->fibers[i].state = State::runs;
  return true;
}

bool any(State state) {
  for (const Fiber& fiber : current->fibers) {
    if (fiber.state == state) return true;
  }
  return false;
}

// Let the fibers of one warp run, each until it waits; false when none could. An exchange needs only the warp itself.
bool step(size_t begin, size_t end) {
  bool moved = false;
  for (const size_t index : order_of(begin, end)) {
    if (current->fibers[index].state != State::runs) continue;
    go_on(static_cast<int>(index));
    moved = true;
  }
  release(begin, end, State::waits_for_warp);
  return moved;
}

// Forward and backward, a warp runs as far as it can before the next one may; shuffled, warps take turns.
Fault run_block() {
  const size_t count = current->fibers.size();
  while (true) {
    bool moved = false;
    for (const size_t warp : order_of(0, count / WARP)) {
      while (step(warp * WARP, (warp + 1) * WARP)) {
        moved = true;
        if (schedule == Schedule::shuffled) break;
      }
    }
    if (moved) continue;
    if (!any(State::waits_for_block) && !any(State::waits_for_warp)) return none;
    if (release(0, count, State::waits_for_block)) continue;
    return any(State::ended) ? left_at_barrier : divergent_barrier;
  }
}

}  // namespace

void wait_for_block() { wait_in(State::waits_for_block); }

uint32_t exchange(uint32_t value, int mask) {
  running_fiber().given = value;
  wait_in(State::waits_for_warp);
  const uint32_t taken = current->fibers[static_cast<size_t>(current->running ^ mask)].given;
  wait_in(State::waits_for_warp);  // nobody gives again before all have taken
  return taken;
}

cudaError_t run(const cudaLaunchConfig_t& config, const std::function<void()>& thread) {
  const unsigned threads = config.blockDim.x;
  if (threads == 0 || threads > 1024 || threads % WARP != 0 || config.gridDim.x == 0 || config.gridDim.y == 0) return bad_launch;
  Block block;
  block.fibers = std::vector<Fiber>(threads);
  block.thread = &thread;
  current = &block;
  blockDim = config.blockDim;
  gridDim = config.gridDim;
  for (unsigned index = 0; index < threads; ++index) create(static_cast<int>(index));
  cudaError_t fault = none;
  for (unsigned y = 0; y < config.gridDim.y && fault == none; ++y) {
    for (unsigned x = 0; x < config.gridDim.x && fault == none; ++x) {
      blockIdx = dim3(x, y, 0);
      for (Fiber& fiber : block.fibers) fiber.state = State::runs;
      fault = run_block();
    }
  }
  current = nullptr;
  return fault;
}

}  // namespace cuda_on_cpu

// For the tests: 0 forward, 1 backward, 2 shuffled.
extern "C" __attribute__((visibility("default"))) void cuda_on_cpu_schedule(int wanted) {
  cuda_on_cpu::schedule = static_cast<cuda_on_cpu::Schedule>(wanted);
  cuda_on_cpu::random_order.seed(1);
}
