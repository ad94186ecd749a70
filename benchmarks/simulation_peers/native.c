/* Local training of one client, softmax regression in float32: the floor of what a processor needs for small models.
   Built with: cc -O3 -march=native -ffast-math -shared -fPIC native.c -o native.so -lm */

#include <math.h>

enum { MOST_ROWS = 64, MOST_CLASSES = 64 };

/* x [examples, inputs], y [examples]; order [epochs, examples] says which row comes when; weight [classes, inputs], bias [classes] are changed. */
void train(const float *x, const long *y, const long *order, long epochs, long examples, long batch, long inputs,
           long classes, float rate, float *weight, float *bias)
{
    float pull[MOST_ROWS][MOST_CLASSES];
    for (long epoch = 0; epoch < epochs; epoch++, order += examples) {
        for (long first = 0; first < examples; first += batch) {
            const long count = examples - first < batch ? examples - first : batch;
            /* All rows of a batch see the weights as they were before it. */
            for (long i = 0; i < count; i++) {
                const long row = order[first + i];
                const float *in = x + row * inputs;
                float *p = pull[i], most = -INFINITY, sum = 0;
                for (long c = 0; c < classes; c++) {
                    const float *w = weight + c * inputs;
                    float dot = bias[c];
                    for (long j = 0; j < inputs; j++)
                        dot += w[j] * in[j];
                    p[c] = dot;
                    most = dot > most ? dot : most;
                }
                for (long c = 0; c < classes; c++)
                    sum += p[c] = expf(p[c] - most);
                for (long c = 0; c < classes; c++)
                    p[c] = rate / count * (p[c] / sum - (c == y[row]));
            }
            for (long i = 0; i < count; i++) {
                const float *in = x + order[first + i] * inputs;
                for (long c = 0; c < classes; c++) {
                    float *w = weight + c * inputs;
                    for (long j = 0; j < inputs; j++)
                        w[j] -= pull[i][c] * in[j];
                    bias[c] -= pull[i][c];
                }
            }
        }
    }
}
