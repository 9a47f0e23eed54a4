#include "ctl/rpc.hpp"

#include <cstring>

namespace udm::ctl {
namespace {

// The parser itself copes with any depth, but what walks the value afterwards is recursive.
bool too_deep(std::string_view text) {
    unsigned depth = 0;
    bool in_string = false;
    for (std::size_t i = 0; i < text.size(); ++i) {
        const char c = text[i];
        if (in_string) {
            if (c == '\\') ++i;
            if (c == '"') in_string = false;
        } else if (c == '"') {
            in_string = true;
        } else if (c == '[' || c == '{') {
            if (++depth > kDepthMax) return true;
        } else if ((c == ']' || c == '}') && depth != 0) {
            --depth;
        }
    }
    return false;
}

Json response(const Json& id, Json result) {
    return {{"jsonrpc", "2.0"}, {"id", id}, {"result", std::move(result)}};
}
Json error_response(const Json& id, Json error) {
    return {{"jsonrpc", "2.0"}, {"id", id}, {"error", std::move(error)}};
}

void append_line(std::string& out, const Json& id, const Json& answer) {
    std::string text = to_line(answer);
    if (text.size() > kLineMax) {
        text = to_line(error_response(
            id,
            error_object(Failure{Errc::too_large,
                                 "the answer is longer than 1 MiB: ask for less (limit, after, device)"})));
    }
    out += text;
    out += '\n';
}

}  // namespace

Json error_object(const RpcError& error) { return {{"code", error.code()}, {"message", error.what()}}; }

Json error_object(const Failure& failure) {
    const int number = static_cast<int>(failure.error().code);
    const char* name = strerrorname_np(number);
    const char* words = strerrordesc_np(number);
    Json data = {
        {"errno", number}, {"name", name ? name : "?"}, {"strerror", words ? words : "Unknown error"}};
    if (!failure.device().empty()) data["device"] = failure.device();
    return {{"code", rpc_code::kRefused}, {"message", failure.what()}, {"data", std::move(data)}};
}

void RpcSession::handle_line(std::string_view line, std::string& out) {
    while (!line.empty() && (line.back() == '\r' || line.back() == ' ')) line.remove_suffix(1);
    if (line.empty()) return;
    const auto refuse = [&](int code, const char* why) {
        append_line(out, nullptr, error_response(nullptr, error_object(RpcError{code, why})));
    };
    if (line.size() > kLineMax) return refuse(rpc_code::kNoRequest, "a message of more than 1 MiB");
    if (too_deep(line)) return refuse(rpc_code::kNoRequest, "nested more than 32 deep");
    Json request = Json::parse(line, nullptr, false);
    if (request.is_discarded()) return refuse(rpc_code::kNoJson, "this is no JSON");
    Line answers;
    if (request.is_array()) {
        if (request.empty()) return refuse(rpc_code::kNoRequest, "an empty batch");
        if (request.size() > kBatchMax)
            return refuse(rpc_code::kNoRequest, "a batch of more than 1024 requests");
        answers.batch = true;
        answers.calls.resize(request.size());
        run_batch(request, answers);
    } else {
        answers.calls.resize(1);
        run(request, answers.calls[0]);
    }
    for (const Call& call : answers.calls) answers.waiting += call.pending ? 1 : 0;
    if (answers.waiting == 0) {
        append_answer(answers, out);
    } else {
        lines_.push_back(std::move(answers));
    }
}

// A line of 1 MiB could ask for many GiB of answers, all in memory before it shows that they are too long.
void RpcSession::run_batch(const Json& requests, Line& answers) {
    std::size_t room = kLineMax - kBatchMax * kErrorBytes;  // an error fits for each, whatever comes
    for (std::size_t i = 0; i < requests.size(); ++i) {
        Call& call = answers.calls[i];
        const auto refuse = [&](const char* why) {
            call.answer = error_response(call.id, error_object(Failure{Errc::too_large, why}));
        };
        if (room == 0) {
            call.wants_answer = !requests[i].is_object() || requests[i].contains("id");
            if (call.wants_answer && requests[i].is_object()) call.id = requests[i]["id"];
            if (to_line(call.id).size() > kErrorBytes / 4) call.id = nullptr;
            refuse("not run: the answers before fill 1 MiB");
            continue;
        }
        run(requests[i], call);
        if (!call.wants_answer || call.pending) continue;
        const std::size_t bytes = to_line(call.answer).size() + 1;
        if (bytes > room) {
            room = 0;
            refuse("the batch's answers are longer than 1 MiB: ask for less (limit, after, device) or one by one");
        } else {
            room -= bytes;
        }
    }
}

void RpcSession::run(const Json& request, Call& call) {
    const auto refuse = [&](int code, const char* why) {
        call.answer = error_response(call.id, error_object(RpcError{code, why}));
    };
    if (!request.is_object()) return refuse(rpc_code::kNoRequest, "a request is an object");
    if (const auto id = request.find("id"); id == request.end()) {
        call.wants_answer = false;
    } else if (id->is_string() || id->is_number() || id->is_null()) {
        call.id = *id;
    } else {
        return refuse(rpc_code::kNoRequest, "id is a string, a number or null");
    }
    const auto version = request.find("jsonrpc");
    const auto method = request.find("method");
    if (version == request.end() || *version != "2.0" || method == request.end() || !method->is_string()) {
        call.wants_answer = true;  // it isn't a notification, it is no request
        return refuse(rpc_code::kNoRequest, "a request has \"jsonrpc\":\"2.0\" and a \"method\"");
    }
    static const Json kNone = Json::object();
    const auto given = request.find("params");
    const bool none = given == request.end() || given->is_null() || (given->is_array() && given->empty());
    if (!none && !given->is_object()) {
        return refuse(rpc_code::kBadParams, "params is an object: parameters have names");
    }
    finish(call, [&] {
        Service::Answer answer =
            service_.call(method->get_ref<const std::string&>(), none ? kNone : *given, caller_);
        if (answer.pending && call.wants_answer) {
            if (waits_ >= kWaitsMax)
                throw Failure{Errc::too_large, "too many unfinished waits on one connection"};
            call.pending = std::move(answer.pending);
        }
        return std::move(answer.result);
    });
    if (call.pending) {
        ++waits_;
        look(call, std::chrono::steady_clock::now());  // it may have happened already
    }
}

// The answer from what `result` returns or throws: nothing gets past here.
void RpcSession::finish(Call& call, std::function<Json()> result) {
    try {
        call.answer = response(call.id, result());
        return;
    } catch (const RpcError& error) {
        call.answer = error_response(call.id, error_object(error));
    } catch (const Failure& failure) {
        call.answer = error_response(call.id, error_object(failure));
    } catch (const std::exception& error) {
        call.answer = error_response(
            call.id,
            error_object(RpcError{rpc_code::kInternal, std::string{"internal error: "} + error.what()}));
    }
}

// True when the call is answered.
bool RpcSession::look(Call& call, std::chrono::steady_clock::time_point now) {
    Pending& pending = *call.pending;
    bool done = true;
    finish(call, [&]() -> Json {
        if (auto result = pending.check()) return std::move(*result);
        if (pending.deadline && *pending.deadline <= now) return pending.at_deadline();
        done = false;
        return nullptr;
    });
    if (done) {
        call.pending.reset();
        --waits_;
    } else {
        call.answer = nullptr;
    }
    return done;
}

void RpcSession::check_pending(std::string& out) {
    const auto now = std::chrono::steady_clock::now();
    for (auto line = lines_.begin(); line != lines_.end();) {
        for (Call& call : line->calls) {
            if (call.pending && look(call, now)) --line->waiting;
        }
        if (line->waiting == 0) {
            append_answer(*line, out);
            line = lines_.erase(line);
        } else {
            ++line;
        }
    }
}

std::set<std::uint64_t> RpcSession::awaited() const {
    std::set<std::uint64_t> serials;
    for (const Line& line : lines_) {
        for (const Call& call : line.calls) {
            if (call.pending) serials.insert(call.pending->serial);
        }
    }
    return serials;
}

std::optional<std::chrono::steady_clock::time_point> RpcSession::next_deadline() const noexcept {
    std::optional<std::chrono::steady_clock::time_point> first;
    for (const Line& line : lines_) {
        for (const Call& call : line.calls) {
            if (call.pending && call.pending->deadline && (!first || *call.pending->deadline < *first)) {
                first = call.pending->deadline;
            }
        }
    }
    return first;
}

void RpcSession::append_answer(Line& line, std::string& out) {
    if (!line.batch) {
        if (line.calls[0].wants_answer) append_line(out, line.calls[0].id, line.calls[0].answer);
        return;
    }
    Json answers = Json::array();
    for (Call& call : line.calls) {
        if (call.wants_answer) answers.push_back(std::move(call.answer));
    }
    if (!answers.empty()) append_line(out, nullptr, answers);
}

}  // namespace udm::ctl
