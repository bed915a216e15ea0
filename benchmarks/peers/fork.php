<?php
/*
 * php fork.php PORT: a forking time server as in the socket tutorials of 2003. The master accepts and forks, the child
 * reads four bytes at a time and answers, SIGCHLD is ignored, and every step is printed (the caller redirects it to a file).
 */
declare(strict_types=1);

const ADDRESS = '127.0.0.1';

function log_line(string $text): void
{
    echo 'SERVER [', getmypid(), '] >> ', date('Y/m/d H:i:s'), ' ', $text, "\n";
}

function serve(Socket $client): void
{
    socket_getpeername($client, $address, $port);
    log_line("connected: $address:$port");
    while (($command = socket_read($client, 4)) !== false && $command !== '') {
        log_line("command: $command");
        if ($command === 'time') {
            socket_write($client, date('Y/m/d H:i:s'));
        } elseif ($command === 'quit') {
            socket_write($client, 'quit');
            break;
        }
    }
    socket_close($client);
    log_line("closed: $address:$port");
}

$listener = socket_create(AF_INET, SOCK_STREAM, SOL_TCP);
socket_set_option($listener, SOL_SOCKET, SO_REUSEADDR, 1);
socket_set_option($listener, SOL_TCP, TCP_NODELAY, 1);
if (!socket_bind($listener, ADDRESS, (int) $argv[1]) || !socket_listen($listener, 1024)) {
    exit(1);
}
pcntl_signal(SIGCHLD, SIG_IGN);
log_line("listening: $argv[1]");
while ($client = socket_accept($listener)) {
    if (pcntl_fork() === 0) {
        socket_close($listener);
        serve($client);
        exit(0);
    }
    socket_close($client);
}
