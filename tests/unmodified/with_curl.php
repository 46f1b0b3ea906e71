<?php
// Does what standard input says, line by line, with PHP's curl.

$headers = ['Authorization: Bearer oauth2-stale-1f8c2b', 'Content-Type: application/json'];
while (($line = fgets(STDIN)) !== false) {
    $step = trim($line);
    $curl = curl_init('https://api.lucid.co' . ($step === 'get' ? '/users/me/profile' : '/documents'));
    curl_setopt_array($curl, [
        CURLOPT_RETURNTRANSFER => true,
        CURLOPT_FAILONERROR => true,
        CURLOPT_HTTPHEADER => $headers,
    ]);
    if ($step !== 'get') {
        curl_setopt($curl, CURLOPT_POSTFIELDS, '{"title":"a note","product":"lucidchart"}');
    }
    $answer = curl_exec($curl);
    if ($answer === false) {
        fwrite(STDERR, curl_error($curl) . "\n");
        exit(1);
    }
    echo "$step $answer\n";
}
