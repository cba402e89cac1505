// Memory of tensors that is kept for the next tensor instead of being given back to the system, which would clear every page of
// it again: a step makes the same tensors as the one before it.

#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>

#include <algorithm>
#include <cstddef>
#include <map>
#include <mutex>
#include <unordered_map>
#include <vector>

namespace {

// Smaller blocks are left to the system's allocator, which keeps them itself.
constexpr size_t SMALLEST = 1 << 16;

class Kept final : public c10::Allocator {
  public:
    c10::DataPtr allocate(size_t bytes) override {
        if (bytes < SMALLEST) return below()->allocate(bytes);
        const size_t size = rounded(bytes);
        void *block = nullptr;
        {
            const std::lock_guard<std::mutex> guard(mutex);
            if (holders > 0) {
                block = take(size);
                if (!block) make_room(size);
            }
        }
        if (!block) block = fresh(size);
        const std::lock_guard<std::mutex> guard(mutex);
        sizes[block] = size;
        live += size;
        peak = std::max(peak, live);
        return {block, block, &Kept::deleter, c10::Device(c10::DeviceType::CPU)};
    }

    c10::DeleterFnPtr raw_deleter() const override { return &Kept::deleter; }

    void copy_data(void *to, const void *from, size_t bytes) const override { default_copy_data(to, from, bytes); }

    void hold() {
        const std::lock_guard<std::mutex> guard(mutex);
        if (holders++ == 0) peak = live;
    }

    void release() {
        const std::lock_guard<std::mutex> guard(mutex);
        if (--holders == 0) drop_all();
    }

    static Kept &only() {
        // Never destroyed: tensors may outlive whatever would destroy it.
        static Kept *kept = new Kept();
        return *kept;
    }

  private:
    static c10::Allocator *below() { return c10::GetDefaultCPUAllocator(); }

    // Steps of an eighth: sizes of one kind share a list, and at most an eighth is lost.
    static size_t rounded(size_t bytes) {
        size_t step = SMALLEST / 8;
        while (step * 16 <= bytes) step *= 2;
        return (bytes + step - 1) / step * step;
    }

    void *fresh(size_t size) {
        try {
            return below()->raw_allocate(size);
        } catch (...) {
            // What is kept may be what is lacking.
            {
                const std::lock_guard<std::mutex> guard(mutex);
                drop_all();
            }
            return below()->raw_allocate(size);
        }
    }

    void *take(size_t size) {
        const auto found = free.find(size);
        if (found == free.end()) return nullptr;
        void *block = found->second.back();
        found->second.pop_back();
        if (found->second.empty()) free.erase(found);
        idle -= size;
        return block;
    }

    // What is kept is bounded: with what is in use it never exceeds 1.25 times the most that was in use at once.
    void make_room(size_t size) {
        const size_t most = std::max(peak, live + size) / 4 * 5;
        while (!free.empty() && live + idle + size > most) {
            const size_t largest = free.rbegin()->first;
            below()->raw_deallocate(take(largest));
        }
    }

    void drop_all() {
        for (auto &[size, blocks] : free) {
            for (void *block : blocks) below()->raw_deallocate(block);
        }
        free.clear();
        idle = 0;
    }

    static void deleter(void *block) {
        if (!block) return;
        Kept &kept = only();
        const std::lock_guard<std::mutex> guard(kept.mutex);
        const auto found = kept.sizes.find(block);
        if (found == kept.sizes.end()) {
            // Not ours: what was made before, or is small.
            below()->raw_deallocate(block);
            return;
        }
        const size_t size = found->second;
        kept.sizes.erase(found);
        kept.live -= size;
        if (kept.holders == 0) {
            below()->raw_deallocate(block);
            return;
        }
        kept.free[size].push_back(block);
        kept.idle += size;
    }

    std::mutex mutex;
    std::map<size_t, std::vector<void *>> free;
    std::unordered_map<void *, size_t> sizes;
    size_t live = 0, idle = 0, peak = 0;
    int holders = 0;
};
} // namespace

extern "C" {

// Keeps memory until as many releases as holds were made.
void distillery_hold_memory() noexcept {
    static const bool installed = [] {
        c10::SetCPUAllocator(&Kept::only(), 1);
        return true;
    }();
    static_cast<void>(installed);
    Kept::only().hold();
}

void distillery_release_memory() noexcept { Kept::only().release(); }
}
