/* The programs of the test images, one for all: each does what its name says.
 *
 * virt-launcher-monitor ... -- QEMU ARGUMENTS   starts virt-launcher and QEMU as its children, as
 *     they are in KubeVirt's pods, and ends when QEMU does, or when it is asked to: it is the first
 *     process of its container, whose others the kernel then kills.
 * virt-launcher   starts virtqemud and virtlogd, and sleeps.
 * any other name  sleeps until it is asked to end.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static void end(int number) {
    (void)number;
    _exit(0);
}

static pid_t start(char *const arguments[]) {
    pid_t pid = fork();
    if (pid == 0) {
        execvp(arguments[0], arguments);
        perror(arguments[0]);
        _exit(127);
    }
    return pid;
}

static pid_t start_one(char *name) {
    char *arguments[] = {name, NULL};
    return start(arguments);
}

static int monitor(char **arguments) {
    while (*arguments != NULL && strcmp(*arguments, "--") != 0)
        arguments++;
    if (*arguments == NULL || arguments[1] == NULL) {
        fputs("virt-launcher-monitor: no QEMU behind --\n", stderr);
        return 2;
    }
    start_one("/usr/bin/virt-launcher");
    pid_t qemu = start(arguments + 1);
    for (;;) {
        int status;
        pid_t ended = wait(&status);
        if (ended == qemu)
            return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
        if (ended < 0 && errno != EINTR)
            return 1;
    }
}

int main(int count, char **arguments) {
    /* The first process of a container gets no signal for which it has no handler. */
    struct sigaction action = {.sa_handler = end};
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    char *slash = strrchr(arguments[0], '/');
    const char *name = slash == NULL ? arguments[0] : slash + 1;
    if (strcmp(name, "virt-launcher-monitor") == 0 && count > 1)
        return monitor(arguments + 1);
    if (strcmp(name, "virt-launcher") == 0) {
        start_one("/usr/bin/virtqemud");
        start_one("/usr/bin/virtlogd");
    }
    for (;;)
        pause();
}
