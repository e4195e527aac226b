/* fuzz_zip.c - zip archives from strangers: every entry is read or refused, whatever the bytes. */
#include "base/base.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    zip *z;
    volatile uint8_t sum = 0;
    if (zip_open(data, size, "fuzz", &z) != SCA_OK) return 0;
    for (size_t i = 0; i < zip_count(z); i++) {
        const zip_entry *e = zip_at(z, i);
        const uint8_t *view;
        uint8_t *copy;
        if (zip_find(z, e->name) != e) __builtin_trap();
        if (zip_view(z, e, &view) == SCA_OK)
            for (uint64_t k = 0; k < e->bytes; k++) sum = (uint8_t)(sum + view[k]);
        if (zip_read(z, e, 1 << 20, &copy) == SCA_OK) {
            for (uint64_t k = 0; k < e->bytes; k++) sum = (uint8_t)(sum + copy[k]);
            mem_free(copy);
        }
    }
    zip_close(z);
    return 0;
}
