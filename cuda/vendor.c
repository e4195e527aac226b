/* vendor.c - opening a library of the GPU's maker. */
#include "cuda/vendor.h"

#include <dlfcn.h>
#include <string.h>

static sca_status not_found(const vendor_library *l, const char *file)
{
    str list = { 0 };
    for (int i = 0; !file && l->files[i]; i++) str_printf(&list, "%s%s", i ? ", " : "", l->files[i]);
    const char *slot = strchr(l->row, '=');
    sca_status s =
        status_fail(SCA_ERR_UNSUPPORTED,
                    "device " KIND ": %s: library not found, looked for %s (%s); name it with %s=FILE, or "
                    "leave %s out",
                    l->row, file ? file : str_text(&list), dlerror(), slot + 1, l->row);
    str_free(&list);
    return s;
}

sca_status cuda_vendor_load(const vendor_library *l, const char *file)
{
    void *library = file ? dlopen(file, RTLD_NOW | RTLD_LOCAL) : NULL;
    for (int i = 0; !file && !library && l->files[i]; i++) library = dlopen(l->files[i], RTLD_NOW | RTLD_LOCAL);
    if (!library) return not_found(l, file);
    for (int i = 0; i < l->n; i++) {
        void *address = dlsym(library, l->functions[i]);
        if (!address)
            return status_fail(SCA_ERR_UNSUPPORTED,
                               "device " KIND
                               ": %s: the library has no function %s; install the version that this build was "
                               "made with, or leave %s out",
                               l->row, l->functions[i], l->row);
        memcpy(&l->into[i], &address, sizeof address); /* a function behind a pointer to data: POSIX's own way */
    }
    return SCA_OK;
}
