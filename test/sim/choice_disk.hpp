// A small disk whose requests end when a test says so, in the order it says, well or not; and what a power cut could leave
// on it. For tests that try every order.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "port/disk.hpp"
#include "port/reactor.hpp"
#include "sim/trace.hpp"

namespace udm {

using Block = std::array<std::byte, kSectorSize>;

inline std::uint64_t hash_of(const Block& block) {
    Trace hash;
    for (std::size_t i = 0; i < kSectorSize; i += 8) {
        std::uint64_t word = 0;
        std::memcpy(&word, block.data() + i, 8);
        hash.add(word);
    }
    return hash.hash();
}

class ChoiceDisk final : public Disk {
  public:
    // `order` counts what begins, here and with whoever shares it.
    ChoiceDisk(std::string name, std::vector<Block> content, std::uint64_t& order)
        : name_{std::move(name)}, now_{content}, stable_{std::move(content)}, order_{order} {
        limits_.size = {now_.size()};
        limits_.discard = true;
        limits_.discard_granularity = kSectorSize;
    }
    void submit(Io& io) noexcept override {
        Pending pending{&io, Reactor::current(), io.op, io.extent, io.flags, {}, ++moment_, ++order_};
        if (io.op == Op::write) {
            pending.data.resize(io.extent.length.v);
            io.buffers.copy_to(pending.data[0].data(), to_bytes(io.extent.length));
        }
        if (io.op == Op::write_zeroes || io.op == Op::discard) pending.data.resize(io.extent.length.v, Block{});
        pending_.push_back(std::move(pending));
    }
    const Limits& limits() const noexcept override { return limits_; }

    std::size_t pending() const noexcept { return pending_.size(); }
    Op op(std::size_t which) const noexcept { return pending_[which].op; }
    std::string describe(std::size_t which) const {
        const Pending& p = pending_[which];
        return name_ + " " + to_string(p.op) + " " + std::to_string(p.extent.first.v) + "+" + std::to_string(p.extent.length.v);
    }
    // It ends; one that fails has no effect.
    void end(std::size_t which, IoStatus status) {
        Pending p = std::move(pending_[which]);
        pending_.erase(pending_.begin() + static_cast<std::ptrdiff_t>(which));
        ++moment_;
        if (status == IoStatus::ok) {
            for (std::size_t i = 0; i < p.data.size(); ++i) {
                now_[p.extent.first.v + i] = p.data[i];
                cached_.push_back({p.extent.first.v + i, p.data[i], moment_});
                if (p.flags.fua) make_stable(moment_ + 1, p.extent);
            }
            if (p.op == Op::flush) make_stable(p.submitted, {{0}, limits_.size});
            if (p.op == Op::read) p.io->buffers.copy_from(now_[p.extent.first.v].data(), to_bytes(p.extent.length));
            if (p.op == Op::extent_status) p.io->answer = {p.extent.length, false, false};
        }
        p.reactor->complete_later(*p.io, status);
    }

    const Block& now(std::uint64_t sector) const { return now_[sector]; }
    const std::vector<Block>& all() const noexcept { return now_; }
    // Everything that may be in that sector after a power cut, each once; what is certainly stable first, then as written.
    std::vector<Block> after_cut(std::uint64_t sector) const {
        std::vector<Block> may{stable_[sector]};
        const auto add = [&may](const Block& block) {
            if (std::find(may.begin(), may.end(), block) == may.end()) may.push_back(block);
        };
        for (const Cached& cached : cached_) {
            if (cached.sector == sector) add(cached.block);
        }
        for (const Pending& p : pending_) {
            for (std::size_t i = 0; i < p.data.size(); ++i) {
                if (p.extent.first.v + i == sector) add(p.data[i]);
            }
        }
        return may;
    }
    // Flushes look alike: only their order tells whose they are.
    void add_flushes(std::vector<std::pair<std::uint64_t, std::uint64_t>>& flushes, std::uint64_t mark) const {
        for (const Pending& p : pending_) {
            if (p.op == Op::flush) flushes.push_back({p.order, mark});
        }
    }
    void add_to(Trace& hash) const {
        for (std::uint64_t s = 0; s < now_.size(); ++s) {
            hash.add(hash_of(now_[s]));
            for (const Block& block : after_cut(s)) hash.add(hash_of(block));
        }
        // Under way, in whatever order.
        std::vector<std::uint64_t> words;
        for (const Pending& p : pending_) {
            Trace one;
            one.add(static_cast<std::uint64_t>(p.op) << 32 | p.extent.length.v << 1 | p.flags.fua);
            one.add(p.extent.first.v);
            for (const Block& block : p.data) one.add(hash_of(block));
            if (p.op == Op::flush) {
                for (const Cached& cached : cached_) one.add(cached.completed < p.submitted ? hash_of(cached.block) : 1);
            }
            words.push_back(one.hash());
        }
        std::sort(words.begin(), words.end());
        hash.add(words.size());
        for (const std::uint64_t word : words) hash.add(word);
    }

  private:
    struct Pending {
        Io* io;
        Reactor* reactor;
        Op op;
        Extent extent;
        IoFlags flags;
        std::vector<Block> data;
        std::uint64_t submitted, order;
    };
    struct Cached {
        std::uint64_t sector;
        Block block;
        std::uint64_t completed;
    };
    void make_stable(std::uint64_t completed_before, Extent extent) {
        std::erase_if(cached_, [&](const Cached& cached) {
            const bool stays = cached.completed >= completed_before || cached.sector < extent.first.v || cached.sector >= extent.end().v;
            if (!stays) stable_[cached.sector] = cached.block;
            return !stays;
        });
    }

    std::string name_;
    Limits limits_;
    std::vector<Block> now_, stable_;
    std::vector<Cached> cached_;
    std::vector<Pending> pending_;
    std::uint64_t& order_;
    std::uint64_t moment_ = 0;
};

}  // namespace udm
