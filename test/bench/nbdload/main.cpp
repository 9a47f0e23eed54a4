// nbdload: a load generator that speaks NBD itself, with many requests a system call, so that the server is
// what is measured. One thread. Simple replies only.
#include <cstdio>
#include <exception>
#include <nlohmann/json.hpp>

#include "test/bench/nbdload/load.hpp"

namespace {

using load::Options, load::Result;

double us(std::uint64_t ns) { return static_cast<double>(ns) / 1e3; }

nlohmann::ordered_json latencies(const load::Histogram& h) {
    return {{"p50", us(h.percentile(0.5))},
            {"p90", us(h.percentile(0.9))},
            {"p99", us(h.percentile(0.99))},
            {"p99.9", us(h.percentile(0.999))},
            {"max", us(h.most())}};
}

nlohmann::ordered_json as_json(const Options& o, const Result& r) {
    const auto n = static_cast<double>(r.requests);
    const auto bytes = static_cast<double>(r.bytes);
    nlohmann::ordered_json j;
    j["mode"] = load::mode_name(o.mode);
    j["connections"] = o.connections;
    j["depth"] = o.depth;
    j["size"] = o.size;
    j["requests"] = r.requests;
    j["seconds"] = r.seconds;
    j["iops"] = n / r.seconds;
    j["mib_per_second"] = bytes / r.seconds / (1 << 20);
    j["latency_us"] = latencies(r.latency);
    if (r.flushes != 0) {
        j["flushes"] = r.flushes;
        j["flush_latency_us"] = latencies(r.flush_latency);
    }
    j["requests_per_send"] = n / static_cast<double>(std::max<std::uint64_t>(r.sends, 1));
    j["requests_per_receive"] = n / static_cast<double>(std::max<std::uint64_t>(r.receives, 1));
    j["client_cpu_us"] = us(r.client_cpu_ns) / n;
    if (o.pid != 0) {
        const auto &a = r.server_before, &b = r.server_after;
        const double cpu = us(b.cpu_ns - a.cpu_ns);
        j["server"] = {{"cpu_us", cpu / n},
                       {"cpu_share", cpu / 1e6 / r.seconds},
                       {"written_per_byte", static_cast<double>(b.write_bytes - a.write_bytes) / bytes},
                       {"read_per_byte", static_cast<double>(b.read_bytes - a.read_bytes) / bytes},
                       {"wchar_per_byte", static_cast<double>(b.wchar - a.wchar) / bytes},
                       {"rchar_per_byte", static_cast<double>(b.rchar - a.rchar) / bytes},
                       {"rw_calls", static_cast<double>(b.calls - a.calls) / n},
                       {"rss_kib", b.rss_kib},
                       {"rss_kib_more", static_cast<std::int64_t>(b.rss_kib - a.rss_kib)},
                       {"peak_rss_kib", b.peak_rss_kib}};
    }
    return j;
}

void print_text(const Options& o, const Result& r) {
    const auto n = static_cast<double>(r.requests);
    std::printf("%s %u B, %u connection%s, depth %u: %.0f requests/s, %.0f MiB/s\n", load::mode_name(o.mode),
                o.size, o.connections, o.connections == 1 ? "" : "s", o.depth, n / r.seconds,
                static_cast<double>(r.bytes) / r.seconds / (1 << 20));
    std::printf("  latency us: p50 %.0f, p99 %.0f, p99.9 %.0f, max %.0f; %llu requests in %.2f s\n",
                us(r.latency.percentile(0.5)), us(r.latency.percentile(0.99)),
                us(r.latency.percentile(0.999)), us(r.latency.most()),
                static_cast<unsigned long long>(r.requests), r.seconds);
    if (o.pid != 0)
        std::printf("  server: %.2f us of CPU a request, %.0f %% of a core, %llu KiB resident\n",
                    us(r.server_after.cpu_ns - r.server_before.cpu_ns) / n,
                    us(r.server_after.cpu_ns - r.server_before.cpu_ns) / 1e4 / r.seconds,
                    static_cast<unsigned long long>(r.server_after.rss_kib));
}

}  // namespace

int main(int argc, char** argv) {
    const Options options = load::parse_options(argc, argv);
    try {
        load::Load load{options, nbd::Uri::parse(options.uri)};
        const Result result = load.run();
        if (options.pid != 0 && result.server_after.cpu_ns == 0)
            throw std::runtime_error("process " + std::to_string(options.pid) +
                                     " (--pid) is gone or not to be read");
        if (options.json)
            std::printf("%s\n", as_json(options, result).dump().c_str());
        else
            print_text(options, result);
    } catch (const std::exception& e) {
        std::fprintf(stderr, "nbdload: %s\n", e.what());
        return 1;
    }
    return 0;
}
