/* loader.c - worker threads that make batches ahead of the one that takes them, in an order that is fixed beforehand.
 *
 * Batch number i of this rank is made in place i % depth of a ring. A worker takes the next number, finds under the lock
 * which images it holds, and makes it alone; the taker waits for the numbers in turn. */
#include "data/dataset_parts.h"
#include "data/loader_parts.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum { TRIES = 1000, AHEAD = 2 }; /* batches in place of an empty one; places in the ring beside one per worker */

typedef struct place {
    batch_store store;
    int64_t number;  /* of the batch that is being made or is ready here */
    int64_t *images; /* (batch_images) places in the list */
    bool ready;
    sca_status status;
    char *message; /* NULL: none could be kept */
} place;

struct loader {
    loader_options o;
    dataset **sets; /* (o.n_sets) */
    mixture mix;
    char *encoder;

    uint32_t *order; /* of epoch `epoch`; NULL: file order */
    int64_t epoch;

    pthread_mutex_t lock;
    pthread_cond_t made, taken;
    bool started, stop; /* the three above are there; workers end */
    pthread_t *workers;
    int n_workers;
    place *ring;
    int64_t depth;
    int64_t next_made, next_taken; /* numbers of this rank's batches */
    bool holding;                  /* the place before next_taken is in the caller's hands */

    id_map told; /* of images and regions that have been told to be bad */
    int64_t records, bad;
};

/* ---- the sequence of images ------------------------------------------------------------------------------------- */

/* This rank's batch number `number`, in the sequence of all ranks' batches. */
static int64_t global_of(const loader *l, int64_t number) { return l->o.start + number * l->o.size + l->o.rank; }

static sca_status shuffle(loader *l, int64_t epoch)
{
    size_t n = (size_t)l->mix.count;
    if (l->epoch == epoch) return SCA_OK;
    if (!l->order) l->order = mem_alloc(n * sizeof *l->order);
    if (!l->order) return mem_fail(n * sizeof *l->order, "the order of images");
    for (size_t i = 0; i < n; i++) l->order[i] = (uint32_t)i;
    draws d = draws_at(l->o.seed, "epoch", (uint64_t)epoch);
    draw_order(&d, l->order, n);
    l->epoch = epoch;
    return SCA_OK;
}

/* Shuffled: an epoch is whole steps, the last one filled up from the epoch's beginning. */
static sca_status fill_images(loader *l, int64_t batch, int64_t *images)
{
    int64_t B = l->o.batch_images, step = (int64_t)l->o.size * l->o.accumulate, n = l->mix.count;
    if (!l->o.shuffle) {
        for (int64_t i = 0; i < B; i++) images[i] = (batch % n * B + i) % n;
        return SCA_OK;
    }
    int64_t steps = (n + step * B - 1) / (step * B), in_epoch = batch % (steps * step);
    TRY(shuffle(l, batch / (steps * step)));
    for (int64_t i = 0; i < B; i++) images[i] = l->order[(in_epoch * B + i) % n];
    return SCA_OK;
}

/* Images in place of those of a batch that is empty. */
static void other_images(const loader *l, int64_t batch, int try, int64_t *images)
{
    int64_t B = l->o.batch_images, n = l->mix.count;
    char purpose[32];
    snprintf(purpose, sizeof purpose, "instead %d", try);
    draws d = draws_at(l->o.seed, purpose, (uint64_t)batch);
    for (int64_t i = 0; i < B; i++)
        images[i] = l->o.shuffle ? (int64_t)draw_below(&d, (uint64_t)n) : ((batch % n + try) * B + i) % n;
}

/* ---- making a batch ---------------------------------------------------------------------------------------------- */

static example_places places_of(const loader *l, batch_store *b, int kept)
{
    const loader_options *o = &l->o;
    size_t at = (size_t)kept, side = (size_t)o->side, mask = (size_t)o->mask_side * (size_t)o->mask_side;
    example_places to = { 0 };
    if (b->pixels) to.pixels = b->pixels + at * side * side * 3;
    if (b->masks) to.masks = b->masks + at * (size_t)o->regions_per_image * mask;
    if (b->embeddings) to.embedding = b->embeddings + at * b->embedding->bytes;
    return to;
}

static sca_status make_images(loader *l, place *p, int64_t batch, int try, int *kept)
{
    batch_store *b = &p->store;
    *kept = 0;
    for (int i = 0; i < l->o.batch_images; i++) {
        size_t set;
        int64_t image;
        example *e = &b->examples[*kept];
        example_places to = places_of(l, b, *kept);
        mixture_at(&l->mix, p->images[i], &set, &image);
        uint64_t where = (uint64_t)(batch * l->o.batch_images + i) | (uint64_t)try << 48;
        example_clear(e);
        TRY(example_make(&l->o, l->sets[set], set, image, where, &to, e, &b->skipped));
        *kept += e->n > 0;
    }
    return SCA_OK;
}

static sca_status make(loader *l, place *p)
{
    int64_t batch = global_of(l, p->number);
    int kept = 0;
    skip_clear(&p->store.skipped);
    for (int try = 0; try < TRIES; try++) {
        if (try > 0) other_images(l, batch, try, p->images);
        TRY(make_images(l, p, batch, try, &kept));
        if (kept > 0) return collate(&l->o, &p->store, kept);
    }
    return status_fail(SCA_ERR_FORMAT,
                       "%s: no image with a region that can be used, in %d tries%s; see what was left out and why",
                       dataset_name(l->sets[0]), TRIES, l->o.masks ? " (only regions with masks can)" : "");
}

static void keep_message(place *p)
{
    mem_free(p->message);
    p->message = p->status == SCA_OK ? NULL : text_copy(status_message(), strlen(status_message()));
}

/* Under the lock: the next batch is in this place; its images are found here, for they come in turn. */
static place *begin(loader *l)
{
    place *p = &l->ring[l->next_made % l->depth];
    p->number = l->next_made++;
    p->status = fill_images(l, global_of(l, p->number), p->images);
    return p;
}

static void *work(void *user)
{
    loader *l = user;
    pthread_mutex_lock(&l->lock);
    for (;;) {
        while (!l->stop && l->next_made >= l->next_taken - l->holding + l->depth)
            pthread_cond_wait(&l->taken, &l->lock);
        if (l->stop) break;
        place *p = begin(l);
        pthread_mutex_unlock(&l->lock);
        if (p->status == SCA_OK) p->status = make(l, p);
        keep_message(p);
        pthread_mutex_lock(&l->lock);
        p->ready = true;
        pthread_cond_broadcast(&l->made);
    }
    pthread_mutex_unlock(&l->lock);
    return NULL;
}

/* ---- bad records -------------------------------------------------------------------------------------------------- */

static const char *const reasons[SKIP_REASONS] = {
    [SKIP_IMAGE] = "the image cannot be read", [SKIP_BOX] = "the box has no area within the image",
    [SKIP_EMPTY] = "the phrase is empty",      [SKIP_PHRASE] = "the phrase is longer than 65536 bytes",
    [SKIP_MASK] = "the mask is wrong",
};

static sca_status tell(const loader *l, const loader_skip *s)
{
    return l->o.skipped ? l->o.skipped(l->o.skipped_user, s) : SCA_OK;
}

static sca_status check_bad(const loader *l, const char *last)
{
    if ((double)l->bad <= l->o.max_bad * (double)l->records) return SCA_OK;
    return status_fail(SCA_ERR_FORMAT,
                       "%lld of %lld records are bad, more than data.max_bad allows (%g); the last: %s; mend the "
                       "data or raise data.max_bad",
                       (long long)l->bad, (long long)l->records, l->o.max_bad, last);
}

/* Those of annotation files, found when they were opened. */
static sca_status tell_annotations(loader *l)
{
    loader_skip last = { .file = "", .reason = "" };
    for (size_t i = 0; i < l->o.n_sets; i++) {
        const dataset_counts *c = dataset_counted(l->sets[i]);
        l->records += c->images + c->regions + c->bad;
        l->bad += c->bad;
        for (int64_t k = 0; k < c->bad; k++) {
            dataset_bad b = dataset_bad_at(l->sets[i], k);
            last = (loader_skip){ b.file, b.what, b.has_id, b.id, dataset_reason_text(b.reason) };
            TRY(tell(l, &last));
        }
    }
    char text[400];
    snprintf(text, sizeof text, "%.150s: %.200s", last.file, last.reason);
    return check_bad(l, text);
}

/* The same record turns up in every epoch: it is told once. */
static sca_status tell_skipped(loader *l, const skip_list *skipped)
{
    for (size_t i = 0; i < skipped->n; i++) {
        const skip_row *r = &skipped->rows[i];
        uint32_t one = 1;
        size_t before = l->told.n;
        int64_t key = (l->mix.first[r->set] + r->image) << 24 | ((r->region + 1) & 0xffffff);
        TRY(id_map_add(&l->told, key, &one));
        if (l->told.n == before) continue;
        l->bad++;
        const char *reason = r->text ? r->text : reasons[r->reason];
        TRY(tell(l, &(loader_skip){ r->path, r->region < 0 ? "image" : "region", true, r->id, reason }));
        str text = { 0 };
        str_printf(&text, "%s: %s %lld: %s", r->path, r->region < 0 ? "image" : "region", (long long)r->id, reason);
        sca_status status = text.failed ? mem_fail(text.bytes, "a message") : check_bad(l, str_text(&text));
        str_free(&text);
        TRY(status);
    }
    return SCA_OK;
}

/* ---- taking a batch ------------------------------------------------------------------------------------------------ */

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* The place of the batch that is next, once it is made. */
static place *await(loader *l)
{
    pthread_mutex_lock(&l->lock);
    l->holding = false;
    place *p = &l->ring[l->next_taken % l->depth];
    if (l->n_workers == 0) {
        begin(l);
        if (p->status == SCA_OK) p->status = make(l, p);
        keep_message(p);
        p->ready = true;
    }
    pthread_cond_broadcast(&l->taken);
    while (!p->ready) pthread_cond_wait(&l->made, &l->lock);
    p->ready = false;
    l->next_taken++;
    l->holding = true;
    pthread_mutex_unlock(&l->lock);
    return p;
}

sca_status loader_next(loader *l, const loader_batch **out)
{
    double from = now_s();
    *out = NULL;
    place *p = await(l);
    if (p->status != SCA_OK) return status_set(p->status, p->message ? p->message : "a loader thread failed");
    TRY(tell_skipped(l, &p->store.skipped));
    p->store.view.waited_s = now_s() - from;
    *out = &p->store.view;
    return SCA_OK;
}

int64_t loader_position(const loader *l) { return l->o.start + l->next_taken * l->o.size; }
int64_t loader_images(const loader *l) { return l->mix.count; }

/* ---- opening ---------------------------------------------------------------------------------------------------- */

void loader_options_from(const config *c, loader_options *o)
{
    *o = (loader_options){ .sets = c->data_train,
                           .n_sets = c->n_data_train,
                           .shuffle = c->data_shuffle,
                           .regions_per_image = (int)c->data_regions_per_image,
                           .jitter = strcmp(c->data_augment, "lsj") == 0,
                           .jitter_scale = { c->data_lsj_scale[0], c->data_lsj_scale[1] },
                           .workers = (int)c->data_workers,
                           .max_bad = c->data_max_bad,
                           .seed = (uint64_t)c->train_seed,
                           .batch_images = (int)c->train_batch_images,
                           .size = 1,
                           .accumulate = (int)c->train_accumulate,
                           .photo = { .honour_exif = c->run_exif, .max_pixels = c->run_max_pixels } };
}

static sca_status check_options(const loader_options *o)
{
    if (o->n_sets == 0) return status_fail(SCA_ERR_ARGUMENT, "data.train is empty; name at least one data set");
    if (o->jitter &&
        !(o->jitter_scale[0] > 0 && o->jitter_scale[1] >= o->jitter_scale[0] && o->jitter_scale[1] <= 100))
        return status_fail(SCA_ERR_ARGUMENT, "data.lsj_scale is [%g, %g], expected 0 < first <= second <= 100",
                           o->jitter_scale[0], o->jitter_scale[1]);
    if (o->start < 0 || o->start % ((int64_t)o->size * o->accumulate))
        return status_fail(
            SCA_ERR_ARGUMENT,
            "the data position is %lld, expected a multiple of %d ranks x %d batches; go on with the "
            "same ranks x train.accumulate",
            (long long)o->start, o->size, o->accumulate);
    ASSERT(o->batch_images > 0 && o->regions_per_image > 0 && o->rank >= 0 && o->rank < o->size);
    ASSERT(!o->tokens || o->tokenise);
    return SCA_OK;
}

static sca_status check_set(const loader_options *o, const dataset *d)
{
    if ((o->pixels || o->masks) && !dataset_pictures(d))
        return status_fail(SCA_ERR_ARGUMENT,
                           "%s: texts without images; train on them with train.objective text, or name a set of "
                           "images",
                           dataset_name(d));
    return SCA_OK;
}

/* Embeddings replace pixels only where all sets have them, of one shape and from the model's encoder. */
static sca_status choose_embeddings(loader *l)
{
    const embeddings_info *first = dataset_embeddings(l->sets[0]);
    if (!l->o.embeddings) return SCA_OK;
    size_t with = 0;
    for (size_t i = 0; i < l->o.n_sets; i++) with += dataset_embeddings(l->sets[i]) != NULL;
    l->o.embeddings = with == l->o.n_sets && !l->o.jitter;
    if (!l->o.embeddings) return SCA_OK;
    for (size_t i = 0; i < l->o.n_sets; i++) {
        const embeddings_info *e = dataset_embeddings(l->sets[i]);
        if (e->grid != first->grid || e->channels != first->channels || e->f16 != first->f16)
            return status_fail(SCA_ERR_ARGUMENT, "%s: image embeddings of another shape than those of %s",
                               dataset_name(l->sets[i]), dataset_name(l->sets[0]));
        if (l->encoder && strcmp(e->encoder, l->encoder) != 0)
            return status_fail(
                SCA_ERR_ARGUMENT,
                "%s: image embeddings of another encoder than the model's (%s, expected %s); prepare "
                "the store with this model",
                dataset_name(l->sets[i]), e->encoder, l->encoder);
    }
    l->o.pixels = false;
    return SCA_OK;
}

static sca_status open_sets(loader *l)
{
    size_t n = l->o.n_sets;
    int64_t *images = mem_zero(n, sizeof *images);
    double *weights = mem_zero(n, sizeof *weights);
    sca_status status = images && weights ? SCA_OK : mem_fail(n * sizeof *weights, "data sets");
    for (size_t i = 0; i < n && status == SCA_OK; i++) {
        const config_dataset *set = &l->o.sets[i];
        status = l->o.masks ? dataset_open_masks(set, &l->sets[i]) : dataset_open(set, &l->sets[i]);
        if (status == SCA_OK) status = check_set(&l->o, l->sets[i]);
        if (status != SCA_OK) break;
        images[i] = dataset_count(l->sets[i]);
        weights[i] = set->weight;
    }
    if (status == SCA_OK) status = mixture_init(images, weights, n, l->o.seed, &l->mix);
    mem_free(weights);
    mem_free(images);
    return status;
}

static sca_status open_ring(loader *l)
{
    l->depth = l->o.workers + AHEAD;
    if (l->o.workers == 0) l->depth = 1;
    l->ring = mem_zero((size_t)l->depth, sizeof *l->ring);
    if (!l->ring) return mem_fail((size_t)l->depth * sizeof *l->ring, "the loader's queue");
    for (int64_t i = 0; i < l->depth; i++) {
        place *p = &l->ring[i];
        TRY(batch_store_init(&l->o, l->sets[0], &p->store));
        p->images = mem_zero((size_t)l->o.batch_images, sizeof *p->images);
        if (!p->images) return mem_fail((size_t)l->o.batch_images * sizeof *p->images, "a batch");
    }
    return SCA_OK;
}

static sca_status start_workers(loader *l)
{
    pthread_mutex_init(&l->lock, NULL);
    pthread_cond_init(&l->made, NULL);
    pthread_cond_init(&l->taken, NULL);
    l->started = true;
    if (l->o.workers == 0) return SCA_OK;
    l->workers = mem_zero((size_t)l->o.workers, sizeof *l->workers);
    if (!l->workers) return mem_fail((size_t)l->o.workers * sizeof *l->workers, "threads");
    for (; l->n_workers < l->o.workers; l->n_workers++) {
        int failed = pthread_create(&l->workers[l->n_workers], NULL, work, l);
        if (failed)
            return status_fail(SCA_ERR_MEMORY, "loader thread %d cannot be started (%s); lower data.workers",
                               l->n_workers + 1, strerror(failed));
    }
    return SCA_OK;
}

sca_status loader_open(const loader_options *o, loader **out)
{
    sca_status status;
    *out = NULL;
    TRY(check_options(o));
    loader *l = mem_zero(1, sizeof *l);
    if (!l) return mem_fail(sizeof *l, "a loader");
    l->o = *o;
    l->epoch = -1;
    l->sets = mem_zero(o->n_sets, sizeof(dataset *));
    if (o->encoder) l->encoder = text_copy(o->encoder, strlen(o->encoder));
    if (!l->sets || (o->encoder && !l->encoder))
        TRY_GOTO(fail, mem_fail(o->n_sets * sizeof(dataset *), "data sets"));
    TRY_GOTO(fail, open_sets(l));
    TRY_GOTO(fail, tell_annotations(l));
    TRY_GOTO(fail, choose_embeddings(l));
    TRY_GOTO(fail, open_ring(l));
    TRY_GOTO(fail, start_workers(l));
    *out = l;
    return SCA_OK;
fail:
    loader_close(l);
    return status;
}

static void stop_workers(loader *l)
{
    pthread_mutex_lock(&l->lock);
    l->stop = true;
    pthread_cond_broadcast(&l->taken);
    pthread_mutex_unlock(&l->lock);
    for (int i = 0; i < l->n_workers; i++) pthread_join(l->workers[i], NULL);
    pthread_cond_destroy(&l->taken);
    pthread_cond_destroy(&l->made);
    pthread_mutex_destroy(&l->lock);
}

void loader_close(loader *l)
{
    if (!l) return;
    if (l->started) stop_workers(l);
    for (int64_t i = 0; l->ring && i < l->depth; i++) {
        batch_store_free(&l->o, &l->ring[i].store);
        mem_free(l->ring[i].images);
        mem_free(l->ring[i].message);
    }
    for (size_t i = 0; l->sets && i < l->o.n_sets; i++) dataset_close(l->sets[i]);
    mixture_free(&l->mix);
    id_map_free(&l->told);
    mem_free(l->workers);
    mem_free(l->ring);
    mem_free(l->order);
    mem_free(l->encoder);
    mem_free(l->sets);
    mem_free(l);
}
