/* Listens on PORT after 100 ms, and stays: "service ready 100ms" without the
   time that a Go program takes to start. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

int main(void) {
	struct timespec delay = {0, 100 * 1000 * 1000};
	nanosleep(&delay, NULL);
	struct sockaddr_in address = {.sin_family = AF_INET};
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	address.sin_port = htons(atoi(getenv("PORT")));
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	if (bind(fd, (struct sockaddr *)&address, sizeof address) != 0 || listen(fd, 16) != 0)
		return 1;
	for (;;)
		pause();
}
