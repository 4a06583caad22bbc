/* Runs each file given as an argument through a fuzz target once: the kept corpus without a fuzzer.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int main(int count, char **names)
{
	static uint8_t data[1 << 16];

	for (int index = 1; index < count; index++) {
		FILE *file = fopen(names[index], "rb");
		uint8_t *exact;
		size_t size;

		if (file == NULL) {
			perror(names[index]);
			return 1;
		}
		size = fread(data, 1, sizeof data, file);
		fclose(file);
		exact = malloc(size + !size); /* so that one byte too many is seen */
		for (size_t at = 0; at < size; at++)
			exact[at] = data[at];
		LLVMFuzzerTestOneInput(exact, size);
		free(exact);
	}
	printf("%d inputs\n", count - 1);
	return 0;
}
