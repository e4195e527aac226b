/* ranks.c - the processes that a launcher such as mpirun started together. */
#include "tool.h"

#include <stdlib.h>
#include <string.h>

/* Launchers tell their processes through the environment that there are others. */
static bool launched(void)
{
    static const char *const sizes[] = { "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE" };
    for (size_t i = 0; i < LENGTH(sizes); i++) {
        const char *size = getenv(sizes[i]);
        if (size) return strcmp(size, "1") != 0;
    }
    return getenv("PMIX_RANK") != NULL;
}

sca_status ranks_join(void) { return launched() ? sca_ranks_open() : SCA_OK; }
