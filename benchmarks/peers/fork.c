/*
 * fork PORT: the minimum of a server that forks one process per client, and so the limit for all others.
 *
 * One read of four bytes is one command: no framing, no deadlines, no log, no admission. SIGCHLD is ignored, so the
 * kernel reaps the children.
 */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static int answer(int fd, const char *command)
{
    char stamp[20];
    struct tm local;
    time_t now = time(NULL);
    if (memcmp(command, "time", 4) == 0)
        return write(fd, stamp, strftime(stamp, sizeof stamp, "%Y/%m/%d %H:%M:%S", localtime_r(&now, &local))) > 0;
    if (memcmp(command, "quit", 4) == 0)
        return write(fd, "quit", 4) < 0;
    return 1;
}

static void serve(int fd)
{
    char command[4];
    while (read(fd, command, sizeof command) == sizeof command && answer(fd, command))
        continue;
    _exit(0);
}

int main(int argc, char **argv)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int on = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
    address.sin_port = htons(argc == 2 ? (unsigned short)atoi(argv[1]) : 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    setsockopt(listener, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) < 0 || listen(listener, 1024) < 0)
        return 1;
    signal(SIGCHLD, SIG_IGN);
    for (int fd; (fd = accept(listener, NULL, NULL)) >= 0; close(fd))
        if (fork() == 0)
            serve(fd);
    return 1;
}
