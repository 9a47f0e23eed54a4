// The target `mirror`: the same data on two legs or more, and a log of the regions in doubt.
//
// To be read in this order: legs.hpp, regions.hpp, sync_map.hpp (what is known); writes.hpp, reads.hpp (requests);
// failures.hpp, resync.hpp (what is done when legs differ); scrub.hpp (whether they do); succession.hpp (other legs). The log is in
// services/dirty_log.
#pragma once

#include "targets/mirror/failures.hpp"
#include "targets/mirror/reads.hpp"
#include "targets/mirror/resync.hpp"
#include "targets/mirror/scrub.hpp"
#include "targets/mirror/succession.hpp"

namespace udm::mirror {

class Mirror final : public Target, dirty_log::Owner {
  public:
    struct Config {
        Features features;
        std::vector<Leg> legs;
        std::unique_ptr<dirty_log::DirtyLog> log;
    };
    Mirror(const TargetArgs& args, Config config, Successions& all, const std::uint64_t& throttle);
    ~Mirror() override;

    Sectors fits(const Io& io) noexcept override;
    Mapped map(Io& io) noexcept override;
    void on_complete(Io& io, Frame& frame) noexcept override { reads_.done(io, frame); }

    Job<Result<void>> load() override;
    Job<Result<void>> preresume() override;
    void resume() noexcept override;
    Job<void> presuspend(SuspendFlags flags) override;
    Job<void> postsuspend(SuspendFlags flags) override;

    TargetTraits traits() const override;
    std::vector<TargetDevice> devices() const override;
    void adjust_limits(Limits& limits) const override;
    std::string status() const override;
    std::string table() const override;
    std::vector<TargetDetail> details() const override;
    std::optional<RegionMap> region_map(std::size_t cells) const override;
    Job<Result<std::string>> message(const std::vector<std::string>* words) override;
    std::vector<std::string_view> settings() const override;

  private:
    Job<IoStatus> flush_legs() override;
    void log_failed(std::string_view what) noexcept override;
    void log_recovered() noexcept override;

    bool zeroes_for_discards() const noexcept;
    std::string legs_in_words() const;
    Result<void> obey(const std::vector<std::string>& words);
    Result<std::string> scrub(const std::vector<std::string>& words);
    Result<void> set_to(const std::string& name, const std::string& value, bool apply);    // else only checked

    const bool read_only_;
    Set set_;
    Writes writes_{set_, failures_};
    Failures failures_{set_, writes_, reads_, resync_};
    Reads reads_{set_, writes_, failures_, *this};
    Resync resync_;
    Scrub scrub_;
    Succession succession_;
};

}  // namespace udm::mirror
