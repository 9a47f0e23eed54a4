// Clients of simulated volumes: they submit requests, tell the volume's shadow, compare what is read with it, and know
// whether an error had a cause.
#pragma once

#include <array>
#include <memory>
#include <string>
#include <vector>

#include "port/disk.hpp"
#include "port/reactor.hpp"
#include "sim/shadow_disk.hpp"
#include "sim/story.hpp"
#include "sim/world.hpp"

namespace udm {

class SimReactor;

// Something clients use: a disk that comes and goes with the machine, and the shadow that stays.
class Volume {
  public:
    Volume(std::string name, ShadowDisk shadow) : name_{std::move(name)}, shadow_{std::move(shadow)} {}
    virtual ~Volume() = default;
    // True: a request of this kind that began when `causes` had that value may end so.
    virtual bool excuses(Op op, IoStatus status, std::uint64_t causes_at_begin) const {
        static_cast<void>(op);
        static_cast<void>(status);
        return causes() != causes_at_begin;
    }
    // Counts what may make requests fail: asked when a request begins and when it ended badly.
    virtual std::uint64_t causes() const { return 0; }
    // Told of each request, with the number of its data (0: zeroes).
    virtual void submitted(Op op, Extent extent, std::uint64_t write) {
        static_cast<void>(op);
        static_cast<void>(extent);
        static_cast<void>(write);
    }

    const std::string& name() const noexcept { return name_; }
    ShadowDisk& shadow() noexcept { return shadow_; }
    Disk* disk() const noexcept { return disk_; }
    SimReactor* reactor() const noexcept { return reactor_; }
    void attach(Disk& disk, SimReactor& reactor) noexcept {
        disk_ = &disk;
        reactor_ = &reactor;
    }
    void detach() noexcept { disk_ = nullptr; }
    bool attached() const noexcept { return disk_ != nullptr; }

  private:
    friend class Clients;
    std::string name_;
    ShadowDisk shadow_;
    Disk* disk_ = nullptr;
    SimReactor* reactor_ = nullptr;
    std::size_t in_flight_ = 0;
};

class Clients {
  public:
    Clients(World& world, Outcome& outcome) : world_{world}, outcome_{outcome} {}
    Clients(const Clients&) = delete;
    Clients& operator=(const Clients&) = delete;
    ~Clients();

    // One request. The volume is attached; the extent lies within it.
    void submit(Volume& volume, Op op, Extent extent, IoFlags flags = {});
    std::size_t in_flight() const noexcept { return in_flight_; }
    std::uint64_t ended_well() const noexcept { return ended_well_; }
    std::size_t in_flight(const Volume& volume) const noexcept { return volume.in_flight_; }
    // Before power is cut: forgets what is under way, and cuts the shadows of its volumes and of `volumes`.
    void power_cut(const std::vector<Volume*>& volumes);
    // The volume is gone for good, with what is under way on it.
    void forget(Volume& volume);

    // Lets up to `count` events happen; false once nothing happens any more.
    bool let(std::uint64_t count);
    // Until at most `depth` requests are under way; false if that never comes.
    bool settle(std::size_t depth = 0);
    template <class F>
    bool until(F&& done) {
        for (std::uint64_t n = 0; !done(); ++n) {
            if (n > kPatience || !world_.timeline().step()) return done();
        }
        return true;
    }

    // Reads the volume from end to end, nothing else being under way on it, and compares.
    // False: it did not end, or an error without a cause; a difference is a violation like any other.
    bool compare(Volume& volume);

    // When all is removed, what targets still do for themselves ends; no request and no buffer is left then.
    void check_nothing_left();
    // No layer has sent what its disk cannot take.
    void check_disks();

    void violate(const std::string& text);

  private:
    static constexpr std::uint64_t kPatience = 400'000;    // events; more means that something goes in a circle

    class Request final : public Layer {
      public:
        explicit Request(Clients& clients) : clients_{clients} {}
        void on_complete(Io& io, Frame&) noexcept override { clients_.ended(*this, io); }
        Clients& clients_;
        Volume* volume_ = nullptr;
        Op op_{};
        Extent extent_{};
        std::uint64_t id_ = 0;
        ShadowDisk::Ticket ticket_ = 0;
        std::uint64_t causes_ = 0;
        std::size_t slot_ = 0;
        std::vector<std::byte> memory_;
        iovec segments_[3];
    };
    void ended(Request& request, Io& io);
    void check_answer(Request& request, const ExtentAnswer& answer);
    Request& take();
    void give(Request& request);
    void prepare_memory(Request& request, Io& io, IoFlags flags);
    std::string describe(const Request& request) const;

    World& world_;
    Outcome& outcome_;
    std::vector<std::unique_ptr<Request>> requests_;
    std::vector<Request*> free_;
    std::vector<Request*> active_;
    std::size_t in_flight_ = 0;
    std::uint64_t ended_well_ = 0;
    std::uint64_t next_id_ = 1;
    bool comparing_ = false;    // its reads are not those of the history
};

}  // namespace udm
