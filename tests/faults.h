/* faults.h - makes every allocation, then every file operation of a piece of work fail, one after the other. */
#ifndef FAULTS_H
#define FAULTS_H

#include "base/base.h"
#include "check.h"

typedef sca_status fault_work(void *user);

/* Runs work with the n-th operation failing, for n = 1, 2, ... until nothing fails any more: each time a status and
 * a message are expected, and that nothing is leaked (by the sanitizer). Work that succeeds must clean up itself.
 * Returns how many operations there were. */
static inline int64_t check_faults(void (*arm)(int64_t), fault_work *work, void *user, const char *what)
{
    for (int64_t n = 1; n < 1000000; n++) {
        status_set(SCA_OK, "");
        arm(n);
        sca_status status = work(user);
        bool fired = fault_fired();
        arm(0);
        if (!fired) {
            CHECKF(status == SCA_OK, "%s: %s without a fault: %s", what, sca_status_name(status), sca_last_error());
            return n - 1;
        }
        if (status == SCA_OK || sca_last_error()[0] == 0) {
            CHECKF(false, "%s: fault %lld: status %s, message '%s'", what, (long long)n, sca_status_name(status),
                   sca_last_error());
            return n;
        }
    }
    CHECKF(false, "%s never succeeds", what);
    return 0;
}

#endif
