/* Products, which are the same for every cell: compiled once, in a file of their own, and linked to each kernel. */

#define SHARED __attribute__((visibility("hidden")))
#define OUTER_ROWS 240 /* of the gradient at a time: their packed values stay in the second-level cache */

SHARED void multiply(long rows, long columns, long depth, const real *a, long a_row, const real *packed,
                     const real *start, long start_row, real *target, long target_row);
SHARED void multiply_unpacked(long rows, const real *matrix, long matrix_rows, long matrix_row, long depth,
                              const real *a, long a_row, real *target, long target_row);
SHARED void pack_rows(const real *matrix, long matrix_row, long rows, long depth, real *packed, long column);
SHARED void pack_columns(const real *matrix, long matrix_row, long rows, long columns, real *packed, long depth, long at);
SHARED void pack_operand(long count, const real *const *rows, long width, real *packed);
SHARED void add_outer(long count, const real *gradient, long gradient_row, long first, long last, const real *operand,
                      long width, real *target, long target_row, real *left);
