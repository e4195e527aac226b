/* sentencepiece.h - the C face of the SentencePiece library. No exception leaves these functions, nothing is
 * printed. */
#ifndef SENTENCEPIECE_PRIVATE_H
#define SENTENCEPIECE_PRIVATE_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct spm spm;
typedef enum spm_result { SPM_OK, SPM_MEMORY, SPM_FAILED } spm_result;

/* error: a 0-terminated reason when the result is SPM_FAILED. The model must have been checked (spm_read). */
spm_result spm_open(const void *model, size_t bytes, spm **out, char *error, size_t error_bytes);
/* ids of one text (valid UTF-8) to put(user, ids, n); a value other than 0 from it ends as SPM_MEMORY. */
spm_result spm_encode(const spm *s, const char *text, size_t bytes,
                      int (*put)(void *user, const int *ids, size_t n), void *user, char *error,
                      size_t error_bytes);
void spm_close(spm *s);

#ifdef __cplusplus
}
#endif
#endif
