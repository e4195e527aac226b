/* layers.c - what every model is made of: linear, norms, MLP, and tensors for a pass. */
#include "nn/nn.h"

#include <stdio.h>

tensor pass_tensor(const pass *p, int ndim, const int64_t *dim)
{
    return arena_tensor(p->temp, p->d->kind->act, ndim, dim);
}

tensor pass_2d(const pass *p, int64_t a, int64_t b) { return pass_tensor(p, 2, (int64_t[]){ a, b }); }
tensor pass_3d(const pass *p, int64_t a, int64_t b, int64_t c) { return pass_tensor(p, 3, (int64_t[]){ a, b, c }); }

tensor pass_4d(const pass *p, int64_t a, int64_t b, int64_t c, int64_t d)
{
    return pass_tensor(p, 4, (int64_t[]){ a, b, c, d });
}

tensor pass_stat(const pass *p, int64_t rows)
{
    return arena_tensor(p->temp, p->d->kind->act == DT_F64 ? DT_F64 : DT_F32, 1, &rows);
}

tensor pass_ids(const pass *p, int64_t rows) { return arena_tensor(p->temp, DT_I32, 1, &rows); }

pass pass_keeping(const pass *p) { return (pass){ .d = p->d, .temp = p->keep, .keep = p->keep }; }

/* ---- linear ------------------------------------------------------------------------------------------ */

#define NAME_BYTES 224

/* The formatted prefix of a module; too long is our own mistake. */
static void module_name(char name[NAME_BYTES], const char *format, va_list args)
{
    int bytes = vsnprintf(name, NAME_BYTES, format, args);
    ASSERT(bytes > 0 && bytes < NAME_BYTES);
    (void)bytes;
}

void linear_bind(param_set *s, linear *m, bool bias, int64_t N, int64_t K, const char *format, ...)
{
    char name[NAME_BYTES];
    va_list args;
    va_start(args, format);
    module_name(name, format, args);
    va_end(args);
    *m = (linear){ .in_out = false, .b = { tensor_none(), tensor_none() } };
    param_add(s, &m->w, PARAM_MATRIX, INIT_NORMAL, 2, (int64_t[]){ N, K }, "%s.weight", name);
    if (bias) param_add(s, &m->b, PARAM_SMALL, INIT_ZERO, 1, &N, "%s.bias", name);
}

void linear_bind_in_out(param_set *s, linear *m, int64_t K, int64_t N, const char *format, ...)
{
    char name[NAME_BYTES];
    va_list args;
    va_start(args, format);
    module_name(name, format, args);
    va_end(args);
    *m = (linear){ .in_out = true };
    param_add(s, &m->w, PARAM_MATRIX_IN_OUT, INIT_NORMAL, 2, (int64_t[]){ K, N }, "%s.weight", name);
    param_add(s, &m->b, PARAM_SMALL, INIT_ZERO, 1, &N, "%s.bias", name);
}

void linear_fwd(const pass *p, const linear *m, tensor y, tensor x, activation act, tensor r)
{
    op_linear_fwd(p->d, y, x, m->w.v, m->b.v, r, (linear_options){ .act = act, .in_out = m->in_out });
}

bool linear_trained(const linear *m) { return tensor_given(m->w.g); }

void linear_bwd(const pass *p, const linear *m, tensor dx, tensor dy, tensor x, tensor r)
{
    op_linear_bwd(p->d, dx, m->w.g, m->b.g, dy, x, m->w.v, r, m->in_out);
}

/* ---- norms ------------------------------------------------------------------------------------------- */

void layernorm_bind(param_set *s, norm *m, int64_t C, float eps, const char *format, ...)
{
    char name[NAME_BYTES];
    va_list args;
    va_start(args, format);
    module_name(name, format, args);
    va_end(args);
    m->eps = eps;
    param_add(s, &m->w, PARAM_SMALL, INIT_ONE, 1, &C, "%s.weight", name);
    param_add(s, &m->b, PARAM_SMALL, INIT_ZERO, 1, &C, "%s.bias", name);
}

void rmsnorm_bind(param_set *s, norm *m, int64_t C, float eps, const char *format, ...)
{
    char name[NAME_BYTES];
    va_list args;
    va_start(args, format);
    module_name(name, format, args);
    va_end(args);
    *m = (norm){ .eps = eps };
    param_add(s, &m->w, PARAM_SMALL, INIT_ONE, 1, &C, "%s.weight", name);
}

void norm_fwd(const pass *p, const norm *m, tensor y, tensor x, norm_kept *k)
{
    bool centred = tensor_given(m->b.v);
    norm_kept none = { tensor_none(), tensor_none(), tensor_none() };
    if (k) {
        pass keep = pass_keeping(p);
        *k = (norm_kept){ x, centred ? pass_stat(&keep, x.dim[0]) : tensor_none(), pass_stat(&keep, x.dim[0]) };
    } else {
        k = &none;
    }
    if (centred)
        op_layernorm_fwd(p->d, y, k->mean, k->rstd, x, m->w.v, m->b.v, m->eps);
    else
        op_rmsnorm_fwd(p->d, y, k->rstd, x, m->w.v, m->eps);
}

void norm_bwd(const pass *p, const norm *m, tensor dx, tensor dy, const norm_kept *k, tensor r)
{
    if (tensor_given(m->b.v))
        op_layernorm_bwd(p->d, dx, m->w.g, m->b.g, dy, k->mean, k->rstd, k->x, m->w.v, r);
    else
        op_rmsnorm_bwd(p->d, dx, m->w.g, dy, k->rstd, k->x, m->w.v, r);
}

/* ---- MLP --------------------------------------------------------------------------------------------- */

/* Rows that go through the hidden layer at once: the hidden activations of more would be most of a pass's memory.
 */
enum { MLP_ROWS = 1024 };

/* Rows from..from+n; absent stays absent. */
static tensor some_rows(tensor t, int64_t from, int64_t n)
{
    return tensor_given(t) ? tensor_slice(t, 0, from, n) : t;
}

static int64_t mlp_hidden(const mlp *m) { return m->up.in_out ? m->up.w.v.dim[1] : m->up.w.v.dim[0]; }

void mlp_fwd(const pass *p, const mlp *m, tensor y, tensor x, tensor r, mlp_kept *k)
{
    size_t mark = arena_mark(p->temp);
    int64_t rows = x.dim[0], hidden = mlp_hidden(m);
    if (k) {
        pass keep = pass_keeping(p);
        *k = (mlp_kept){ x, pass_2d(&keep, rows, hidden) };
    }
    tensor a = pass_2d(p, rows < MLP_ROWS ? rows : MLP_ROWS, hidden);
    for (int64_t i = 0; i < rows; i += MLP_ROWS) {
        int64_t n = rows - i < MLP_ROWS ? rows - i : MLP_ROWS;
        tensor an = tensor_slice(a, 0, 0, n);
        tensor hn = k ? tensor_slice(k->h, 0, i, n) : an;
        linear_fwd(p, &m->up, hn, tensor_slice(x, 0, i, n), k ? ACT_NONE : m->act, tensor_none());
        if (k) op_activation_fwd(p->d, an, hn, m->act);
        linear_fwd(p, &m->down, tensor_slice(y, 0, i, n), an, ACT_NONE, some_rows(r, i, n));
    }
    arena_release(p->temp, mark);
}

void mlp_bwd(const pass *p, const mlp *m, tensor dx, tensor dy, const mlp_kept *k, tensor r)
{
    size_t mark = arena_mark(p->temp);
    int64_t rows = dy.dim[0], hidden = mlp_hidden(m), most = rows < MLP_ROWS ? rows : MLP_ROWS;
    bool again = linear_trained(&m->down); /* the activations, made anew */
    tensor da = pass_2d(p, most, hidden), a = again ? pass_2d(p, most, hidden) : tensor_none();
    for (int64_t i = 0; i < rows; i += MLP_ROWS) {
        int64_t n = rows - i < MLP_ROWS ? rows - i : MLP_ROWS;
        tensor dan = tensor_slice(da, 0, 0, n), hn = tensor_slice(k->h, 0, i, n), an = some_rows(a, 0, n);
        if (again) op_activation_fwd(p->d, an, hn, m->act);
        linear_bwd(p, &m->down, dan, tensor_slice(dy, 0, i, n), an, tensor_none());
        op_activation_bwd(p->d, dan, dan, hn, m->act);
        linear_bwd(p, &m->up, some_rows(dx, i, n), dan, some_rows(k->x, i, n), some_rows(r, i, n));
    }
    arena_release(p->temp, mark);
}
