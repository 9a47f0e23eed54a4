// The handshake of one connection, fixed newstyle, as a state machine without I/O: bytes in, bytes and a
// question out. Whoever drives it looks exports up, and moves the connection where it must be to answer.
//   source   doc/proto.md, "Handshake", "Option types", "Metadata querying"
#pragma once

#include <string>

#include "exports/nbd/codec.hpp"

namespace udm::nbd {

// What a client is told of an export, as it is at that moment on the export's home.
struct ExportFacts {
    std::string_view name;  // the canonical one
    std::string_view description;
    std::uint64_t size = 0;   // bytes
    std::uint16_t flags = 0;  // transmission flags, without kSendDf
    std::uint32_t block_min = 512, block_preferred = 4096, block_max = 0;
    std::span<const std::string> contexts;  // metadata contexts there are: all, or those of contexts_in_question()
};

struct ListedExport {
    std::string_view name, description;
};

class Negotiation {
  public:
    struct Bounds {
        std::uint32_t option_bytes = 64 << 10;  // of one option's data; longer ones are skipped with an error
        std::uint32_t options = 256;            // of one handshake; then the connection is closed
    };
    enum class Next {
        more,          // wants more bytes than there are
        reply,         // send what was put out, then go on
        list,          // call answer_list()
        look_up,       // find the export called name(), then call answer_export()
        transmission,  // send what was put out; the handshake is over
        close,         // send what was put out, then close the connection
    };

    explicit Negotiation(const Bounds& bounds) noexcept : bounds_{bounds} {}

    // The server speaks first.
    void greet(Bytes& out);
    // Takes one message off the front of `in`; `used` says how much of it was consumed (also with `more`).
    // Views into `in` are kept until the answer was given, never beyond.
    Next advance(ByteView in, std::size_t& used, Bytes& out);
    // How many bytes the message at hand has in all, as far as that is known yet: the room its reader needs.
    std::size_t message_size() const noexcept { return message_size_; }

    Next answer_list(std::span<const ListedExport> exports, Bytes& out);
    std::string_view name() const noexcept { return name_; }
    // When the answer wants a list of contexts; else it is enough to say which of these there are.
    bool lists_contexts() const noexcept;
    std::vector<std::string> contexts_in_question() const;
    // Null: there is none of that name. `stopping`: there is, but not for long.
    Next answer_export(const ExportFacts* facts, bool stopping, Bytes& out);

    // After `transmission`:
    bool structured() const noexcept { return structured_; }
    // The metadata contexts to answer, by name; the index is the context's id. For that export alone.
    const std::vector<std::string>& contexts() const noexcept { return contexts_; }

  private:
    enum class State : std::uint8_t { client_flags, option, done };

    Next client_flags(ByteView in, std::size_t& used);
    Next option(const OptionHeader& header, ByteView data, Bytes& out);
    Next refuse(ReplyType type, std::string_view text, Bytes& out);
    Next acknowledge(Bytes& out);
    Next answer_info(const ExportFacts& facts, Bytes& out);
    Next answer_meta(const ExportFacts& facts, Bytes& out);

    Bounds bounds_;
    State state_ = State::client_flags;
    bool fixed_ = false;
    bool zeroes_ = true;
    bool structured_ = false;
    std::uint32_t options_ = 0;
    std::uint32_t option_ = 0;  // the one being answered
    std::uint64_t skip_ = 0;    // bytes of data of an option that was refused for its length
    std::size_t message_size_ = kClientFlagsSize;
    std::string_view name_;
    InfoRequest info_;
    MetaRequest meta_;
    std::vector<std::string> contexts_;
    std::string contexts_of_;  // the export's canonical name for which they were chosen
};

}  // namespace udm::nbd
