/* sentencepiece.cpp - the C face of the SentencePiece library. */
#include "model/sentencepiece.h"

#include <sentencepiece_processor.h>

#include <cstdio>
#include <exception>
#include <new>
#include <vector>

namespace sentencepiece {
namespace logging {
void SetMinLogLevel(int level); /* exported by the library, but in none of its installed headers */
}
} // namespace sentencepiece

struct spm {
    sentencepiece::SentencePieceProcessor processor;
};

namespace {

constexpr int quiet = 4; /* above every level that the library logs at */

spm_result failed(const sentencepiece::util::Status &status, char *error, size_t error_bytes)
{
    std::snprintf(error, error_bytes, "%s", status.ToString().c_str());
    return SPM_FAILED;
}

/* Runs `work`; what the library or the C++ runtime throws becomes a result. */
template <typename Work> spm_result guarded(char *error, size_t error_bytes, Work work)
{
    try {
        return work();
    } catch (const std::bad_alloc &) {
        return SPM_MEMORY;
    } catch (const std::exception &e) {
        std::snprintf(error, error_bytes, "%s", e.what());
    } catch (...) {
        std::snprintf(error, error_bytes, "an unknown C++ exception");
    }
    return SPM_FAILED;
}

} // namespace

spm_result spm_open(const void *model, size_t bytes, spm **out, char *error, size_t error_bytes)
{
    *out = nullptr;
    return guarded(error, error_bytes, [&]() -> spm_result {
        static const bool silenced = (sentencepiece::logging::SetMinLogLevel(quiet), true);
        (void)silenced;
        spm *s = new spm;
        sentencepiece::util::Status status;
        try {
            status =
                s->processor.LoadFromSerializedProto(absl::string_view(static_cast<const char *>(model), bytes));
        } catch (...) {
            delete s;
            throw;
        }
        if (!status.ok()) {
            delete s;
            return failed(status, error, error_bytes);
        }
        *out = s;
        return SPM_OK;
    });
}

spm_result spm_encode(const spm *s, const char *text, size_t bytes,
                      int (*put)(void *user, const int *ids, size_t n), void *user, char *error, size_t error_bytes)
{
    return guarded(error, error_bytes, [&]() -> spm_result {
        std::vector<int> ids;
        const auto status = s->processor.Encode(absl::string_view(text, bytes), &ids);
        if (!status.ok()) return failed(status, error, error_bytes);
        return put(user, ids.data(), ids.size()) == 0 ? SPM_OK : SPM_MEMORY;
    });
}

void spm_close(spm *s) { delete s; }
