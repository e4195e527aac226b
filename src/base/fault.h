/* fault.h - where the doors of this folder ask whether a test wants them to fail (mem.c). */
#ifndef SCA_FAULT_H
#define SCA_FAULT_H

#include <stdbool.h>

bool fault_io_now(void); /* counts one operation on a file; true: fail it with EIO */

#endif
