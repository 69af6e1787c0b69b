-- scenario: a room is booked by one guest at a time
-- The room's row stands for all its nights, and is locked first.

-- setup
CREATE TABLE rooms (id int PRIMARY KEY);
CREATE TABLE bookings (room int REFERENCES rooms, guest text, nights int4range);
INSERT INTO rooms VALUES (7);
CREATE FUNCTION book(p_room int, p_guest text, p_nights int4range) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM rooms WHERE id = p_room FOR UPDATE;
    IF EXISTS (SELECT FROM bookings WHERE room = p_room AND nights && p_nights) THEN
        RETURN false;
    END IF;
    INSERT INTO bookings VALUES (p_room, p_guest, p_nights);
    RETURN true;
END $$;

-- session: ann
SELECT book(7, 'ann', '[3,6)');

-- session: ben
SELECT book(7, 'ben', '[5,9)');

-- never: two guests have the room in the same night
SELECT * FROM bookings AS a JOIN bookings AS b ON a.room = b.room AND a.nights && b.nights AND a.guest < b.guest;
