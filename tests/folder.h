/* folder.h - a folder for the files of one test program, and a few looks at what lies in it. */
#ifndef FOLDER_H
#define FOLDER_H

#include "check.h"

#include <dirent.h>
#include <unistd.h>

static char dir[256]; /* of this run's files, removed at the end */

/* A path in dir; one of a few buffers. */
static inline const char *in_dir(const char *name)
{
    static char paths[8][512];
    static int next;
    char *path = paths[next = (next + 1) % 8];
    snprintf(path, sizeof paths[0], "%s/%s", dir, name);
    return path;
}

/* Files in dir whose names begin with prefix. */
static inline int count_files(const char *prefix)
{
    int count = 0;
    DIR *d = opendir(dir);
    for (struct dirent *e; d && (e = readdir(d));) count += text_starts(e->d_name, prefix) && e->d_name[1] != 0;
    if (d) closedir(d);
    return count;
}

static inline bool file_is(const char *path, const char *expected)
{
    char *text;
    size_t bytes;
    if (file_read(path, 1 << 20, &text, &bytes) != SCA_OK) return false;
    bool same = strcmp(text, expected) == 0 && bytes == strlen(expected);
    mem_free(text);
    return same;
}

static inline bool write_text(const char *path, const char *text)
{
    return file_write(path, text, strlen(text)) == SCA_OK;
}

/* Makes dir, SCA_BUILD/NAME.xxxxxx. */
static inline bool folder_make(const char *name)
{
    snprintf(dir, sizeof dir, "%s/%s.XXXXXX", SCA_BUILD, name);
    return mkdtemp(dir) != NULL;
}

static inline bool folder_remove(void)
{
    char line[300];
    snprintf(line, sizeof line, "rm -rf '%s'", dir);
    return system(line) == 0;
}

#endif
