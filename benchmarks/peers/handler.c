/*
 * handler: one session of `time` and `quit` on standard input and output, for the super-servers: xinetd, tcpserver and
 * socat accept and fork, and execute this program with the client's socket as descriptors 0 and 1.
 *
 * As in fork.c, one read of four bytes is one command.
 */
#include <string.h>
#include <time.h>
#include <unistd.h>

static int answer(const char *command)
{
    char stamp[20];
    struct tm local;
    time_t now = time(NULL);
    if (memcmp(command, "time", 4) == 0)
        return write(1, stamp, strftime(stamp, sizeof stamp, "%Y/%m/%d %H:%M:%S", localtime_r(&now, &local))) > 0;
    if (memcmp(command, "quit", 4) == 0)
        return write(1, "quit", 4) < 0;
    return 1;
}

int main(void)
{
    char command[4];
    while (read(0, command, sizeof command) == sizeof command && answer(command))
        continue;
    return 0;
}
