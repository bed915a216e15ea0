<?php
/*
 * php fork.php PORT: a forking time server as the socket tutorials of 2003 showed it. The master accepts and forks, the
 * child reads four bytes at a time and answers, SIGCHLD is ignored, and every step is echoed (to a file, by the caller).
 */
declare(strict_types=1);

const ADDRESS = '127.0.0.1';

function say(string $what): void
{
    echo 'SERVER [', getmypid(), '] >> ', date('Y/m/d H:i:s'), ' ', $what, "\n";
}

function serve(Socket $client): void
{
    socket_getpeername($client, $address, $port);
    say("connected: $address:$port");
    while (($command = socket_read($client, 4)) !== false && $command !== '') {
        say("command: $command");
        if ($command === 'time') {
            socket_write($client, date('Y/m/d H:i:s'));
        } elseif ($command === 'quit') {
            socket_write($client, 'quit');
            break;
        }
    }
    socket_close($client);
    say("closed: $address:$port");
}

$listener = socket_create(AF_INET, SOCK_STREAM, SOL_TCP);
socket_set_option($listener, SOL_SOCKET, SO_REUSEADDR, 1);
socket_set_option($listener, SOL_TCP, TCP_NODELAY, 1);
if (!socket_bind($listener, ADDRESS, (int) $argv[1]) || !socket_listen($listener, 1024)) {
    exit(1);
}
pcntl_signal(SIGCHLD, SIG_IGN);
say("listening: $argv[1]");
while ($client = socket_accept($listener)) {
    if (pcntl_fork() === 0) {
        socket_close($listener);
        serve($client);
        exit(0);
    }
    socket_close($client);
}
